"""The laboratory: a claim in, a verdict out.

    foretaste lab list                       the studies
    foretaste lab run credit --mode quick    register what is expected, run what is missing, judge
    foretaste lab show credit --json         the verdict and its figures

**Main path.** `study.py` (what a study is) -> `register.py` (the expectation enters the ledger) -> `runner.py` with
`workers.py` and `jobs.py` (every arm with every seed, side by side, resumable; `tuning.py` before them, where arms
have grids) -> `results.py`, `curves.py` (figures) -> `verdict.py` with `sequences.py` (intervals, decision) ->
`claims.py` (pages). Beside it: `sweep.py` (settings), `scaling.py` and `forecast.py` (laws of scale).

**To write a study**, add one file here and a row in `study.STUDIES`:

    from foretaste.config import EnvConfig, HeldOutConfig, ModelConfig, TrainConfig
    from foretaste.lab.study import Expectation, Plan, Study

    BASE = TrainConfig(env=EnvConfig("maze"), model=ModelConfig("nano"), held_out=HeldOutConfig(every=2))
    ARMS = {"value": BASE, "grpo": replace(BASE, algorithm=AlgorithmConfig(name="grpo", group_size=8))}

    STUDY = Study(
        name="my-study",
        claim="A value function needs at most half the tokens of GRPO to half success in the maze",
        source="where the claim comes from, in your own words",
        expectations=(Expectation("tokens_to:0.5", "value", "grpo", size=2, effect="speedup", center="median"),),
        quick=Plan(ARMS, seeds=(1, 2, 3, 4, 5, 6), token_budget=20_000, minutes=4),
        full=Plan(ARMS, seeds=tuple(range(1, 9)), token_budget=200_000, minutes=60),
    )

- Arms that are held against each other are tuned alike: `Study.tuning` with a grid for each (`Arm(tuned="NAME")`),
  as many settings and tokens for a baseline as for yours, on `study.TUNING_SEEDS`, which no plan may score; see
  `grids.py`.
- `seed`, `token_budget` and `steps` of an arm's config are set by the plan; every arm gets the same budget, unless it
  is an `Arm` with a `token_budget` of its own, which the page then names.
- The curve comes from held-out measurements, so set `held_out.every`; they are not counted in the budget.
- An arm may be a function of the seed (another warm start for each), or an `Arm` whose `work` is any
  `module:function(arguments, context) -> dict` of yours: inference, exams, frozen policies.
- An effect that is no paired difference of one metric: give the study `effects(results, expectation)`; a table or a
  chart of its own: `rows(results)`, `picture(results)`.
- All arms of a seed are measured on the same held-out items, and every seed on its own (`held_out.seed`, which the
  plan sets): an interval over seeds is one over training and items. Work of your own that draws items: by that number.
- How many seeds an interval needs, and what may be looked at when: the table in `sequences.py`.
- A study file states its expectation before its first run. Changing it later makes a new registration, and results that
  were there before make its verdict exploratory: choose fresh seeds.
"""
