"""The adversarial loop on the built-in story beside its baselines: recall, perplexity, faithfulness, seconds.

    python -m tests.bench.adversarial --seeds 3 --jobs 2
    python -m tests.bench.adversarial --variants GAN -- --steps 100      options of train.py adversarial

All variants train the language model for equally many steps on equally many batches.
"""

from tests.bench.common import bench, make_parser, run
from tests.bench.story_grammar import measure_run

VARIANTS = {"GAN": [], "maximum likelihood": ["--gan_steps", 0], "text alone": ["--sentences", 0]}
COLUMNS = ("recall_stated", "recall_graph_only", "recall_neither", "perplexity", "faithfulness", "right_wordings",
           "gan_seconds", "seconds")


def measure(options, name, out, seed):
    """The final record of a run, and the measures of its synthetic sentences."""
    argv = ["adversarial", "--seed", seed, *options.options, *VARIANTS[name]]
    return run(argv, out, options.threads) | measure_run(out)


def main():
    """Run what the options say."""
    bench(make_parser(__doc__), VARIANTS, measure, COLUMNS)


if __name__ == "__main__":
    main()
