"""mixture_corpora@MIXTURE: list the corpora of a mixture with the hashes of their features.

Only this stage depends on the features of all corpora, so a change of a corpus outside the mixture
reruns no later stage.
"""

from pipeline.config import load_json
from pipeline.files import write_json
from stages.runtime.entry import log, log_wrote, run
from stages.runtime.params import load_params, mixture_of
from stages.runtime.paths import FEATURES, MIXTURE_CORPORA


def mixture_corpora(mixture: str) -> None:
    """Write data/mixture_corpora/MIXTURE.json: the summary of each corpus's features."""
    params = load_params()
    mixture_of(params, mixture)
    names = params.corpora_of(mixture)
    output = MIXTURE_CORPORA / f"{mixture}.json"
    write_json(output, {name: load_json(FEATURES / name / "summary.json") for name in names})
    log(", ".join(names))
    log_wrote(output)


if __name__ == "__main__":
    run(mixture_corpora)
