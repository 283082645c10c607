"""Events: the envelope, the topics, their models and schemas, producing, consuming, dead letters."""
