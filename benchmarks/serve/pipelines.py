"""The reference (c): pipelines of transformers behind FastAPI, one row at a time.

    python -m benchmarks.serve.pipelines FOLDER PORT

FOLDER has a model of each task in the format of transformers. transformers 5 has no pipeline for
questions; a plain call of the model takes its place.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
import uvicorn
from fastapi import FastAPI

from pipeline.tasks.base.row import Row

Answer = Callable[[Row], Any]


def tagger(folder: Path) -> Answer:
    """A pipeline for token classification. It gets the words as a text."""
    pipe = transformers.pipeline("token-classification", str(folder), aggregation_strategy="simple")
    return lambda row: pipe(" ".join(row["tokens"]))


def answerer(folder: Path) -> Answer:
    """The best start and end of a question's answer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()

    def answer(row: Row) -> Any:
        inputs = tokenizer(
            row["question"], row["context"], truncation=True, max_length=512, return_tensors="pt"
        )
        with torch.no_grad():
            output = model(**inputs)
        span = slice(int(output.start_logits.argmax()), int(output.end_logits.argmax()) + 1)
        return {"answer": tokenizer.decode(inputs["input_ids"][0, span])}

    return answer


def create_app(folder: Path) -> FastAPI:
    """An application with the models of all tasks; FastAPI runs the requests in threads."""
    answers = {
        "ner": tagger(folder / "ner"),
        "srl": tagger(folder / "srl"),
        "qa": answerer(folder / "qa"),
    }
    app = FastAPI()

    @app.post("/v1/predict")
    def predict(body: dict[str, Any]) -> dict[str, Any]:
        (row,) = body["rows"]
        result = json.loads(json.dumps(answers[row["task"]](row), default=float))
        return {"answers": [{"row": 0, "result": result}]}

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(Path(sys.argv[1])),
        port=int(sys.argv[2]),
        log_level="error",
        timeout_keep_alive=600,
    )
