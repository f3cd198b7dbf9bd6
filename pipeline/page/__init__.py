"""Pages for people: one template, one look, charts; needs jinja2 and matplotlib."""
