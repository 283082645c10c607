"""One folder a service, the same file names in each; ``python -m services NAME`` starts one."""
