"""The one-machine stack: the real servers and our services, started, watched and stopped by one supervisor."""
