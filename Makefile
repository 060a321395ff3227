# make demo               compress the real U²-Net with images from Debian's packages
# make demo IMAGES=DIR    the same with your own photographs, without apt
# make test, test-slow    quick tests; tests that take minutes
# make test-zoo           a hundred public architectures the whole way; writes docs/models.md
# make clients           the libraries that apps load the files with, each in an environment of its own
# make gate               every release under export/ against the budget beside it
# make check              format, lint, types, import rules
#
# On Linux, PyPI's torch brings CUDA along. An index of CPU builds in PIP_EXTRA_INDEX_URL saves gigabytes.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt
RUN := $(BIN)/compress run models/u2net.pt --budget 4MB --minutes 2

.PHONY: demo test test-slow test-zoo clients gate check clean

demo: .venv/.installed
	$(BIN)/python models/u2net.py
ifdef IMAGES
	$(RUN) --unlabelled "$(subst ~/,$(HOME)/,$(IMAGES))"
else
	$(BIN)/python models/demo_data.py
	$(RUN) --data data/demo
endif

# A process for each core, of one thread: several threads in each would only wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist loadfile
test: .venv/.installed-dev clients
	$(PYTEST)

test-slow: .venv/.installed-dev
	$(PYTEST) -m slow

# A release is a committed folder with manifest.json and compress.toml. Where one of the two is missing the gate fails,
# and where there is no release at all it says so.
RELEASES = $(sort $(dir $(shell git ls-files ':(glob)export/*/manifest.json' ':(glob)export/*/compress.toml')))
gate: .venv/.installed
	@$(if $(RELEASES),true,echo "gate: no release under export/ is committed: nothing was judged" >&2)
	@for folder in $(RELEASES); do \
		test -f $$folder/compress.toml || { echo "$$folder has no compress.toml: commit its budget" >&2; exit 2; }; \
		$(BIN)/compress gate $$folder || exit; done

# Packages of architectures, beside the environment of the product: none of them is a dependency.
ZOO := torchvision==0.28.0 timm==1.0.31 segmentation-models-pytorch==0.6.0 monai==1.6.1 transformers==5.18.0 \
       huggingface_hub==1.33.0 tokenizers regex pyyaml einops requests httpx httpcore h11 idna certifi urllib3 \
       charset-normalizer anyio sniffio typer click shellingham
test-zoo: .venv-zoo/.installed
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 PYTHONPATH=$(CURDIR) .venv-zoo/bin/python tests/zoo/zoo.py

.venv-zoo/.installed: .venv/.installed-dev
	@$(PYTHON) -m venv .venv-zoo
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		"$$(.venv-zoo/bin/python -c 'import site; print(site.getsitepackages()[0])')/product.pth"
	@.venv-zoo/bin/pip install --quiet --disable-pip-version-check --no-deps $(ZOO)
	@touch $@

check: .venv/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Weights and images stay: they are slow to fetch again.
clean:
	rm -rf .venv .venv-* .kotlin export/clients/web/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.installed: $(BIN)/pip pyproject.toml constraints.txt
	@$(INSTALL) --editable ".[train]"
	@touch $@

.venv/.installed-dev: .venv/.installed
	@$(INSTALL) --editable ".[test,check]"
	@touch $@

WEB := export/clients/web/node_modules/.installed
clients: .venv-tflite-support/.installed .venv-mediapipe/.installed .venv-tensorflow/.installed \
         .venv-tflite-runtime/.installed $(WEB) .kotlin/fetch-model.jar

$(WEB): export/clients/web/package.json
	@echo "Installing the web runtimes ..."
	@cd export/clients/web && npm install --no-package-lock --ignore-scripts --no-audit --no-fund --silent && \
		touch $(CURDIR)/$@ || echo "npm cannot install the web runtimes here: their test will be skipped" >&2

# npm's kotlin-compiler is JetBrains' own, and runs on any JDK.
.kotlin/.installed:
	@echo "Installing the Kotlin compiler ..."
	@mkdir -p .kotlin && npm install --prefix .kotlin --no-package-lock --ignore-scripts --no-audit --no-fund --silent \
		kotlin-compiler@2.4.20 && touch $@ || echo "npm cannot install Kotlin here: its test will be skipped" >&2

.kotlin/fetch-model.jar: export/clients/android/FetchModel.kt .kotlin/.installed
	@echo "Compiling $< ..."
	@if test -f .kotlin/.installed && command -v java > /dev/null; then \
		java -cp '.kotlin/node_modules/kotlin-compiler/lib/*' org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-reflect \
			-include-runtime -Werror -d $@ $<; \
	else echo "no java, or no Kotlin: the test of $< will be skipped" >&2; fi

.venv-tflite-support/.installed: PACKAGES := tflite-support==0.4.4 'numpy<2'
.venv-tflite-support/.installed: MODULE := tflite_support.task.vision
.venv-mediapipe/.installed: PACKAGES := mediapipe==1.2.2
.venv-mediapipe/.installed: MODULE := mediapipe
.venv-tensorflow/.installed: PACKAGES := tensorflow==2.21.0
.venv-tensorflow/.installed: MODULE := tensorflow
.venv-tflite-runtime/.installed: PACKAGES := tflite-runtime==2.14.0 'numpy<2'
.venv-tflite-runtime/.installed: MODULE := tflite_runtime.interpreter

# An environment that cannot be made, or lacks a library of the system's, is no failure: the tests that need it are
# skipped, and say so.
.venv-%/.installed:
	@echo "Installing $* into an environment of its own ..."
	@$(PYTHON) -m venv .venv-$* && .venv-$*/bin/pip install --quiet --disable-pip-version-check $(PACKAGES) && \
		TF_CPP_MIN_LOG_LEVEL=3 .venv-$*/bin/python -c 'import $(MODULE)' && touch $@ || \
		{ echo "$* cannot be installed here: its tests will be skipped" >&2; rm -rf .venv-$*; }

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "compress needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv
