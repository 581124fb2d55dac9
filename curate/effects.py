"""What a decision does to a pair in training, as SQL over `tie`, `action` (null where nothing is decided) and `value`.

A tie has no label: it leaves, unless it is decided to keep, soften or weigh it. Then both of its sides count alike,
where no soft label says otherwise.
"""

from __future__ import annotations

from curate.applying import STAY

NO_LABEL = "a tie has no label to train on"

#: Whether a pair leaves because it is a tie.
UNLABELLED = f"(tie AND coalesce(action NOT IN {('drop', *STAY)}, true))"
#: How much a pair that stays counts in the loss.
WEIGHT = "CASE WHEN action = 'weight' THEN value ELSE 1.0 END"
#: The probability with which it counts for the side that is chosen once flips are done.
LABEL = "CASE WHEN action = 'soft' THEN value WHEN tie THEN 0.5 ELSE 1.0 END"
