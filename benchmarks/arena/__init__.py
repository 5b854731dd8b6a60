"""Models that other people wrote, unedited, and what each way of exporting makes of inputs it was not made from.

`python -m benchmarks.arena` needs the extra `arena`, whose releases are pinned. A model is a builder
function of a `models_*` file; `columns.py` has the ways; `judge.py` says right, loud or wrong.
"""
