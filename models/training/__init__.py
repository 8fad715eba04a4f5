"""What trains and judges.

    recipes.py    runs as functions           batches.py     clips as tensors, in an order made of the seed
    inputs.py     what a network is fed       starts.py      what towers saw before
    learners.py   AC-FPN and TPAVI in training
    losses.py     the published losses        step.py        one step: loss, gradients, update
    train.py      the loop
    runs.py       a run's folder and states   plots.py       curves and samples
    metrics.py    scores, by each protocol    judging.py     a strategy asked about every clip
    scores.py     intervals and the gate      tables.py      text, Markdown and JSON
    benches.py    on what one is judged       arms.py        who is judged
    remembering.py   what several of them ask, computed once
    evaluate.py   `python -m models.training.evaluate STRATEGY`
    tiny.py       the family in `models/tiny`

`python -m models.training train RECIPE --data PATH --out DIR` trains; `recipes` lists the recipes.
"""
