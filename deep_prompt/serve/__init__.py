"""A server of the tasks of one or many artifacts over one backbone, and its page."""
