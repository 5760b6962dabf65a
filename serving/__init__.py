"""What is answered: HTTP around one pure ranking function.

`rank.py` scores, `recommend.py` reads what it needs and calls it, `app.py` and the `routes_*`
modules speak HTTP, `console/` is the page at `/`.
"""
