"""Our own checks, each born of a review comment that was made twice."""
