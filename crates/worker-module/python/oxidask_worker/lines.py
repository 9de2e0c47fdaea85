"""Log lines of Python as one JSON object each, with the fields that the lines of Rust have."""

import datetime
import json
import logging
import sys


class JsonFormatter(logging.Formatter):
    def format(self, record):
        time = datetime.datetime.fromtimestamp(record.created).astimezone()
        fields = {
            "timestamp": time.isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def write_json():
    """From now on everything that goes to the terminal through `logging` is JSON; what users configured included."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    if not logging.root.handlers:
        # Takes the place of the handler of last resort, which has a form of its own.
        handlers.append(logging.StreamHandler())
        handlers[-1].setLevel(logging.WARNING)
        logging.root.addHandler(handlers[-1])
    for handler in handlers:
        if getattr(handler, "stream", None) in (sys.stderr, sys.stdout):
            handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)
