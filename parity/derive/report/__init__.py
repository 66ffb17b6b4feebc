"""Write what was derived as one page of HTML.

document builds the page: its verdict, and what follows. measures says how far the models agree, cards where they part,
without_partner which parameters have none, and table shows the lines. trees puts both module trees side by side: tree
arranges uses of parameters by module, rating says which of their differences part the models, and addresses names the
rows to which cards link.
"""

from .document import page

__all__ = ["page"]
