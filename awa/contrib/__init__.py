"""Other people's frameworks. Each needs its framework installed; awa itself needs none of them."""
