"""A server or worker process with the stub model: `python stub_server.py SETTINGS` or `python stub_server.py`."""

import logging
import sys

from stub_model import StubModel

from gemma4vec.serving.http.http_protocol import bind
from gemma4vec.serving.http.server import run_server
from gemma4vec.serving.http.server_settings import ServerSettings
from gemma4vec.serving.http.workers import run_worker

if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(run_worker(lambda settings: StubModel()))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gemma4vec").setLevel(logging.INFO)
    settings = ServerSettings.from_json(sys.argv[1])
    run_server(settings, bind(settings.host, settings.port), opening=lambda settings: StubModel())
