"""members@MIXTURE: which corpora a mixture has, with the hashes of what they are now.

The one stage that looks at all corpora, so that no later stage of a mixture reruns for a corpus that is not in it.
"""


from pipeline.config import load_json
from pipeline.files import write_json
from stages.runtime.entry import run, say, say_wrote
from stages.runtime.params import load_params, mixture_of
from stages.runtime.paths import FEATURES, MEMBERS


def members(mixture: str) -> None:
    """Write data/members/MIXTURE.json: each member's summary of features."""
    params = load_params()
    mixture_of(params, mixture)
    names = params.members(mixture)
    output = MEMBERS / f"{mixture}.json"
    write_json(output, {name: load_json(FEATURES / name / "summary.json") for name in names})
    say(", ".join(names))
    say_wrote(output)


if __name__ == "__main__":
    run(members)
