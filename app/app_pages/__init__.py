"""One file a page; it reads top to bottom as the screen."""
