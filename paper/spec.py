"""Which numbers the paper has, and where they stand."""

from __future__ import annotations

from paper.numbers import Judged, Number, Place, Sentence

CLAIMS = "2026-11-21-claims.md"
BENCHMARKS = "2026-12-01-benchmarks.md"
STALENESS = "2026-11-21-staleness-paper.md"
ROUNDS = "2026-11-21-plexus-rounds.md"
PLEXUS = "2026-11-21-plexus.md"
JWINS = "2026-11-21-jwins.md"
CHOCO = "2026-11-21-jwins-vs-choco.md"
METADATA = "2026-11-21-jwins-metadata.md"
HADFL = "2026-11-29-hadfl-learning.md"
PLANS = "2026-11-29-hadfl-plans.md"
THOUSAND = "2026-11-29-thousand-nodes.md"
SECURE = "2026-11-29-secure-aggregation.md"
REAL = "2026-11-29-simulated-vs-real.md"

PAIRS = "Random pairs: value, version, age stamp; million events per second, one core"
TRAINING = "Local training and mixing, random 4-regular, two cores"
AVERAGING = "Gossip averaging, 1,000,000 nodes, 10 wake-ups each, one core"
PLANNING = "Planning, one core"
CAPACITY = "staleness_vs_capacity"
FIT = r"[bc] = (-?[\d.]+ ± [\d.]+)"
STRAGGLERS = "async_beats_sync_under_stragglers"


def _speed(name: str, nodes: str, column: str, digits: int | None = 2) -> Number:
    return Number(name, Place(BENCHMARKS, PAIRS, nodes), column, digits)


NUMBERS: tuple[Number | Sentence, ...] = (
    Sentence("ClaimsTotal", CLAIMS, r"All (\d+) claims hold"),
    Sentence("ClaimsScores", CLAIMS, r"The ([\d,]+) scores of equalities"),
    Sentence("ClaimsMean", CLAIMS, r"scores of equalities have mean (-?[\d.]+)"),
    Sentence("ClaimsDeviation", CLAIMS, r"s\.d\. ([\d.]+) and"),
    Sentence("ClaimsLargest", CLAIMS, r"and maximum ([\d.]+), as"),
    Sentence("ClaimsTime", CLAIMS, r"normal scores do\. (\d+ min \d+ s)"),
    Sentence("Machine", BENCHMARKS, r"\n(AMD EPYC, 2 cores, Python [\d.]+, JAX [\d.]+)\."),
    _speed("DrawnThousand", "1,000", "drawn inside"),
    _speed("DrawnMany", "100,000", "drawn inside"),
    _speed("NumbaMany", "100,000", "numba / ours"),
    _speed("PackedThousand", "1,000", "packed"),
    _speed("EventsThousand", "1,000", "planned"),
    _speed("EventsMillion", "1,000,000", "planned"),
    _speed("EventsPackedMillion", "1,000,000", "packed"),
    _speed("HeapLeast", "1,000", "ours / heapq"),
    _speed("HeapMost", "100,000", "ours / heapq"),
    _speed("NumbaThousand", "1,000", "numba / ours"),
    _speed("NumbaMost", "1,000,000", "numba / ours"),
    _speed("NumbaLeast", "10,000", "numba / ours"),
    Number("LevelsMillion", Place(BENCHMARKS, PAIRS, "1,000,000"), "packing", pattern=r"^(\d+) levels"),
    Number("LevelsThousand", Place(BENCHMARKS, PAIRS, "1,000"), "packing", pattern=r"^(\d+) levels"),
    Number("WidthMillion", Place(BENCHMARKS, PAIRS, "1,000,000"), "packing", pattern=r"width (\d+)"),
    Number("PeakConvolution", Place(BENCHMARKS, TRAINING, "W2, 64 nodes"), "share of peak", 2),
    Number("PeakPerceptron", Place(BENCHMARKS, TRAINING, "W1, 64 nodes"), "share of peak", 2),
    Number("LoopConvolution", Place(BENCHMARKS, TRAINING, "W2, 64 nodes"), "Python loop / ours", 2),
    Number("LoopPerceptron", Place(BENCHMARKS, TRAINING, "W1, 64 nodes"), "Python loop / ours", 2),
    Number("CompileConvolution", Place(BENCHMARKS, TRAINING, "W2, 64 nodes"), "compile s", 2),
    Number("MillionSeconds", Place(BENCHMARKS, AVERAGING, "run after compilation, s (target 10)"), "value", 2),
    Number("MillionMemory", Place(BENCHMARKS, AVERAGING, "peak memory, GB (target 1)"), "value", 2),
    Number("MillionPlan", Place(BENCHMARKS, AVERAGING, "plan 10⁷ events, s"), "value", 2),
    Number("PlexusMessages", Place(BENCHMARKS, PLANNING, "default window"), "messages"),
    Number("PlexusPlanSeconds", Place(BENCHMARKS, PLANNING, "default window"), "CPU s", 2),
    Number("PlexusPlanRounds", Place(BENCHMARKS, PLANNING, "default window"), "rounds"),
    Number(
        "JwinsOverheadSmall",
        Place(BENCHMARKS, "Whole rounds with local training, ms", "W1, 16 nodes"),
        "JWINS above full sharing (target 30 %)",
        2,
    ),
    Number("StaleConstant", Place(STALENESS, CAPACITY, "mean, uniform, λ = 1, n = 1,000,000"), "measured", 4, "± 95 %"),
    Number("StaleConstantExact", Place(STALENESS, CAPACITY, "mean, uniform, λ = 1, n = 1,000,000"), "predicted", 4),
    Number("StaleLog", Place(STALENESS, CAPACITY, "mean, uniform, λ = ln n, n = 1,000,000"), "measured", 4, "± 95 %"),
    Number("StaleLogExact", Place(STALENESS, CAPACITY, "mean, uniform, λ = ln n, n = 1,000,000"), "predicted", 4),
    Number("StaleNewest", Place(STALENESS, CAPACITY, "mean, newest, λ = ln n, n = 10,000"), "measured", 4, "± 95 %"),
    Number("StaleNewestExact", Place(STALENESS, CAPACITY, "mean, newest, λ = ln n, n = 10,000"), "predicted", 4),
    Number("StaleRelay", Place(STALENESS, CAPACITY, "mean, everything, λ = ln n, n = 10,000"), "measured", 4, "± 95 %"),
    Number("FlightFit", Place(CLAIMS, None, "flight_time_breaks_log_capacity"), "score or fit", pattern=FIT),
    Number("RelayFit", Place(CLAIMS, None, "opportunistic_with_relay_needs_only_log"), "score or fit", pattern=FIT),
    Number("NewestFit", Place(CLAIMS, None, "opportunistic_newest_needs_capacity_n"), "score or fit", pattern=FIT),
    Number(
        "StragglersDpsgd",
        Place(STALENESS, STRAGGLERS, "time ratio D-PSGD / AD-PSGD, stragglers"),
        "measured",
        3,
        "± 95 %",
    ),
    Number(
        "StragglersAllreduce",
        Place(STALENESS, STRAGGLERS, "time ratio all-reduce / AD-PSGD, stragglers"),
        "measured",
        3,
        "± 95 %",
    ),
    Number(
        "HadflThroughput",
        Place(HADFL, "hadfl_time_to_accuracy", "[3, 3, 1, 1]: HADFL / decentralized FedAvg, samples a second"),
        "measured",
        3,
    ),
    Number("EliasRatio", Place(METADATA, None, "int32 / Elias, random"), "measured", 3),
    Number(
        "SparseTopk",
        Place(THOUSAND, "sparsification_at_scale", "top-k 10 %: ahead of full, same bytes (points)"),
        "measured",
        2,
        "± 95 %",
    ),
    Number(
        "ProcessesRing",
        Place(REAL, "simulated_vs_real", "full, ring: end of the run, real / simulated"),
        "measured",
        4,
        "± 95 %",
    ),
)

PACE = "% of rounds over 100 s, s = 20, time by steps"
VERDICTS: tuple[Judged, ...] = (
    Judged(
        "Plexus", "mean round, samples of 10 (s)", Place(ROUNDS, None, "mean seconds a round, s = 10, time by steps")
    ),
    Judged("", "mean round, samples of 40 (s)", Place(ROUNDS, None, "mean seconds a round, s = 40, time by steps")),
    Judged("", "longer rounds for larger samples, ratio", Place(ROUNDS, None, "s = 40 to s = 10, time by steps")),
    Judged("", r"slow rounds (\%)", Place(ROUNDS, None, PACE)),
    Judged(
        "",
        "bytes to the target, samples of 40 to 10",
        Place(PLEXUS, "plexus_sample_size", "GiB to target, s = 40 to 10"),
    ),
    Judged(
        "",
        "time to accuracy, D-PSGD to Plexus",
        Place(PLEXUS, "plexus_vs_baselines", "writers: TTA, D-PSGD 10-regular to Plexus"),
        published=None,
    ),
    Judged(
        "",
        "pace kept while devices leave, ratio",
        Place(PLEXUS, "plexus_churn", "round, in those always online, leaves"),
    ),
    Judged(
        "",
        "pace kept while devices crash, ratio",
        Place(PLEXUS, "plexus_churn", "round, in those always online, crashes"),
    ),
    Judged("", "accuracy after 80 of 100 crash", Place(PLEXUS, "plexus_crash", "final accuracy, crashes")),
    Judged("JWINS", r"RMSE lost at fewer bytes, MovieLens", Place(JWINS, None, "movielens: JWINS behind full (RMSE)")),
    Judged(
        "", r"bytes, CHOCO-SGD to JWINS, budget 20\,\%", Place(CHOCO, None, "bytes to target, 20%, CHOCO-SGD / JWINS")
    ),
    Judged(
        "", r"bytes, CHOCO-SGD to JWINS, budget 10\,\%", Place(CHOCO, None, "bytes to target, 10%, CHOCO-SGD / JWINS")
    ),
    Judged(
        "HADFL",
        "time, decentralized FedAvg to HADFL",
        Place(HADFL, "hadfl_time_to_accuracy", "[3, 3, 1, 1]: decentralized FedAvg / HADFL, time"),
    ),
    Judged(
        "",
        "time, data parallel to HADFL",
        Place(HADFL, "hadfl_time_to_accuracy", "[3, 3, 1, 1]: data parallel / HADFL, time"),
    ),
    Judged(
        "",
        "share of devices in no ring, unit spread",
        Place(PLANS, "hadfl_selection", "share in no ring, N_p = 2 of [4, 2, 2, 1], unit"),
    ),
    Judged(
        "Timely gossip",
        r"mean staleness, $\lambda$ constant",
        Place(CLAIMS, None, "constant_capacity_does_not"),
        "estimate",
        "± s.e.",
        "prediction",
        "verdict",
    ),
    Judged(
        "",
        r"mean staleness, $\lambda = \ln n$",
        Place(CLAIMS, None, "log_capacity_bounds_staleness"),
        "estimate",
        "± s.e.",
        "prediction",
        "verdict",
    ),
    Judged(
        "",
        r"newest version only, $\lambda = \ln n$",
        Place(CLAIMS, None, "opportunistic_newest_needs_capacity_n"),
        "estimate",
        "± s.e.",
        "prediction",
        "verdict",
    ),
    Judged(
        "",
        r"the last to update sends all it knows",
        Place(CLAIMS, None, "opportunistic_with_relay_needs_only_log"),
        "estimate",
        "± s.e.",
        "prediction",
        "verdict",
    ),
    Judged(
        "DecentralizePy",
        "complete graph ahead of fresh ones (points)",
        Place(THOUSAND, "dynamic_vs_static", "complete ahead of fresh (points)"),
    ),
    Judged(
        "",
        r"top-k 10\,\% behind full, same rounds (points)",
        Place(THOUSAND, "sparsification_at_scale", "top-k 10 %: behind full, same rounds (points)"),
    ),
    Judged(
        "",
        "JWINS behind full, same rounds (points)",
        Place(THOUSAND, "sparsification_at_scale", "JWINS: behind full, same rounds (points)"),
    ),
    Judged("", "accuracy, masked minus plain", Place(SECURE, None, "accuracy, masked − plain")),
)
