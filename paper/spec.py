"""Which numbers the paper has, and where they stand."""

from __future__ import annotations

from paper.numbers import Judged, Number, Place, Sentence

CLAIMS = "2026-12-01-claims.md"
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
LINES = "2026-11-30-staleness-lines.md"
DESIGN = "2026-11-30-design.md"
TRUST = "2026-11-30-trust.md"
PEER = "2026-11-30-decent-bench.md"
WAITING = "2026-12-01-asynchrony.md"
LIARS = "2026-12-01-byzantine-learning.md"
CURVES = "2026-12-01-decentralizepy-curves.md"
AUDIT = "2026-12-01-privacy-audit.md"
UTILITY = "2026-12-01-privacy-utility.md"
INBOXES = "2026-12-01-robust-asynchrony.md"
WORST = "2026-12-01-worst-user.md"

PAIRS = "Random pairs: value, version, age stamp; million events per second, one core"
TRAINING = "Local training and mixing, random 4-regular, two cores"
AVERAGING = "Gossip averaging, 1,000,000 nodes, 10 wake-ups each, one core"
PLANNING = "Planning, one core"
CAPACITY = "staleness_vs_capacity"
FIT = r"[bc] = (-?[\d.]+ ± [\d.]+)"
STRAGGLERS = "async_beats_sync_under_stragglers"
ASYNCHRONY = "when_is_asynchrony_worth_it"
PUBLISHED = "decentralizepy_curves"


def _speed(name: str, nodes: str, column: str, digits: int | None = 2) -> Number:
    return Number(name, Place(BENCHMARKS, PAIRS, nodes), column, digits)


def _row(name: str, file: str, heading: str, row: str) -> Number:
    return Number(name, Place(file, heading, row), "measured", 3, "± 95 %")


def _word(name: str, place: Place, pattern: str) -> Number:
    return Number(name, place, "source", pattern=pattern)


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
    _row("VersionsRandom", LINES, "one_version_per_message", "staleness, random targets, λ = 1, n = 64"),
    _row("VersionsStalest", LINES, "one_version_per_message", "staleness, stalest first, λ = 1, n = 64"),
    _row("VersionsAll", LINES, "one_version_per_message", "staleness, all versions, λ = 1, n = 64"),
    _word(
        "BoundVersions",
        Place(LINES, "one_version_per_message", "staleness, stalest first, λ = 1, n = 64"),
        r"times the bound (\d+)",
    ),
    _word(
        "ExchangeConverge",
        Place(LINES, "bounded_staleness", "rate, exchange every B steps, B = 8, h = 6 of the allowed"),
        r"^(\d+) of 6 seeds",
    ),
    _word(
        "FreeConverge",
        Place(LINES, "bounded_staleness", "rate, free gossip, staleness to 14, h = 12 of the allowed"),
        r"^(\d+) of 6 seeds",
    ),
    _row("WorstBias", WORST, "worst_user", "bias of the worst user, n = 1000, λ = 1"),
    Number("WorstBiasExact", Place(WORST, "worst_user", "bias of the worst user, n = 1000, λ = 1"), "predicted"),
    _row("WorstInstantFew", WORST, "worst_user", "worst at one instant, n = 10, λ = 1"),
    _row("WorstInstant", WORST, "worst_user", "worst at one instant, n = 1000, λ = 1"),
    _row("WorstInstantLog", WORST, "worst_user", "worst at one instant, n = 1000, λ = ln n"),
    Number("ShareRing", Place(AUDIT, "privacy_audit", "share, 1 hop(s), rounds, ring"), "measured", 3),
    _row("ShareFlight", AUDIT, "privacy_audit", "change of the share, 1 hop(s), in flight, w = ½, ring"),
    _row("ShareHops", AUDIT, "privacy_audit", "change of the share, 2 hop(s), in flight, w = ½, ring"),
    _row("SecureGain", UTILITY, "privacy_utility", "accuracy at ε = 1, one node, secure sums − local noise"),
    _row("DecorGain", UTILITY, "privacy_utility", "accuracy at ε = 1, one node, DECOR, σ_p = σ − local noise"),
    Number("ZipLeast", Place(UTILITY, "privacy_utility", "least μ, one node, ZIP-DL"), "measured", 2),
    _row("RobustFactor", TRUST, "byzantine_breakdown", "largest factor of a round, all attacks, CS+, b = 3"),
    Number(
        "RobustBound",
        Place(TRUST, "byzantine_breakdown", "largest factor of a round, all attacks, CS+, b = 3"),
        "predicted",
        3,
    ),
    _row("Echo", TRUST, "byzantine_breakdown", "error left, b = 8, CS+, echo"),
    _word(
        "EchoNeeded",
        Place(TRUST, "byzantine_breakdown", "error left, b = 8, CS+, echo"),
        r"allowed at least ([\d.]+)",
    ),
    _row("IosLost", LIARS, "byzantine_learning", "accuracy lost, one label each, IOS, isolation"),
    _row(
        "InboxGain",
        INBOXES,
        "robust_asynchrony",
        "accuracy, trimmed mean − plain mean, sign flip, b = 3, latency 9",
    ),
    _row("FewestSlow", DESIGN, "topologies_in_seconds", "slowness of the fewest rounds, phones, consensus"),
    _row(
        "DesignFixed",
        DESIGN,
        "designed_networks",
        "edge devices, quadratic: seconds of the best fixed graph / designed",
    ),
    _row(
        "DesignChanging",
        DESIGN,
        "designed_networks",
        "edge devices, quadratic: seconds of the best changing network / designed",
    ),
    _row("DesignTraining", DESIGN, "designed_networks", "phones, training: seconds of the best fixed graph / designed"),
    _row("WaitAll", WAITING, ASYNCHRONY, "minibatch / best asynchronous, fixed, a = 2, τ = 0"),
    Number(
        "WaitAllTheory",
        Place(WAITING, ASYNCHRONY, "minibatch / best asynchronous, fixed, a = 2, τ = 0"),
        "predicted",
        3,
    ),
    _row("WaitFirst", WAITING, ASYNCHRONY, "m-synchronous / best asynchronous, fixed, a = 2, τ = 0"),
    _row("WaitEqual", WAITING, ASYNCHRONY, "waiting / asynchronous, fixed, a = 0, τ = 0"),
    _row("WaitNear", WAITING, ASYNCHRONY, "waiting / asynchronous, fixed, a = 0, τ = 1"),
    _row("WaitFar", WAITING, ASYNCHRONY, "waiting / asynchronous, fixed, a = 0, τ = 10"),
    Sentence("CurvesFirst", CURVES, r"JWINS ended here ([\d.]+) points behind"),
    Number("CurvesWhole", Place(CURVES, PUBLISHED, "accuracy, whole models, IID"), "measured", 3),
    Number("CurvesWholeTheirs", Place(CURVES, PUBLISHED, "published accuracy, whole models, IID"), "measured", 3),
    Sentence("PeerLeast", PEER, r"\| 10 \| `DGD` \|[^\n]*\| (\d+) \([^|\n]*\) \|\n"),
    Sentence("PeerMost", PEER, r"\| 1,000 \| `ATC_Tracking` \|[^\n]*\| (\d+) \([^|\n]*\) \|\n"),
    Sentence("PeerEven", PEER, r"breaks even after about ([\d,]+)\s+rounds of 10 agents"),
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
    Judged(
        "",
        "accuracy, ours minus its code, whole models",
        Place(CURVES, PUBLISHED, "ours − published, whole models, IID"),
    ),
    Judged(
        "",
        "accuracy, ours minus its code, JWINS",
        Place(CURVES, PUBLISHED, "ours − published, JWINS, stretches of labels"),
    ),
    Judged(
        "",
        "accuracy, ours minus its code, Epidemic Learning",
        Place(CURVES, PUBLISHED, "ours − published, Epidemic Learning, Dirichlet(0.1)"),
    ),
)
