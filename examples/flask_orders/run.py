#!/usr/bin/env python
"""The whole example in one command: a private PostgreSQL, its tables, a web server and a worker; Ctrl-C ends it.

With `--once` it takes two orders over HTTP, one of which is rolled back, waits for the other to be shipped, and ends.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from awa.embedded import EmbeddedPostgres

HERE = Path(__file__).parent
PORT = os.environ.get("PORT", "8000")
URL = f"http://127.0.0.1:{PORT}"


def ask(path, body=None):
    """The status and the JSON of an answer."""
    request = urllib.request.Request(URL + path, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def wait_for_server(server):
    """Until it answers, or has died."""
    while server.poll() is None:
        try:
            return ask("/orders/1")
        except ValueError:  # a 404 is an answer, and no JSON
            return None
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the web server has died")


def once():
    """Two orders."""
    status, taken = ask("/orders", {"item": "teapot", "quantity": 2})
    print("POST 2 teapots:", status, taken)
    print("POST 1000 teapots:", *ask("/orders", {"item": "teapot", "quantity": 1000}))
    while not ask(f"/orders/{taken['order']}")[1]["shipped"]:
        time.sleep(0.1)
    print(f"order {taken['order']} is shipped")


def main():
    """Start everything, and end it."""
    with ExitStack() as stack:
        dsn = os.environ.get("ORDERS_DSN") or stack.enter_context(EmbeddedPostgres()).database("orders")
        environment = {**os.environ, "ORDERS_DSN": dsn, "PYTHONUNBUFFERED": "1"}

        def flask(*arguments):
            return [sys.executable, "-m", "flask", "--app", "shop", *arguments]

        def start(*arguments):
            process = subprocess.Popen(flask(*arguments), cwd=HERE, env=environment)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        subprocess.run(flask("create-tables"), cwd=HERE, env=environment, check=True)
        subprocess.run(flask("awa", "migrate"), cwd=HERE, env=environment, check=True)
        server = start("run", "--port", PORT)
        worker = start("awa", "worker")
        wait_for_server(server)
        print(f"""
curl {URL}/orders -d '{{"item": "teapot", "quantity": 2}}'       an order, and its job
curl {URL}/orders -d '{{"item": "teapot", "quantity": 1000}}'    rolled back: no order, no job
curl {URL}/orders/1                                            shipped yet?
""")
        if "--once" in sys.argv:
            once()
        else:
            try:
                worker.wait()
            except KeyboardInterrupt:
                print("stopping")


if __name__ == "__main__":
    main()
