"""``python -m deploy.local`` supervises the stack of one data folder."""

from deploy.local.supervisor import main

main()
