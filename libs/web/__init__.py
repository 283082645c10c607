"""What every HTTP service has: problem+json errors, health, request ids, limits, metrics."""

from libs.web.app import HealthCheck, create_app, serve
from libs.web.problems import Problem, problem_response

__all__ = ["HealthCheck", "Problem", "create_app", "problem_response", "serve"]
