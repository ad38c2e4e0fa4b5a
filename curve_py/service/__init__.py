"""What every server and every caller of the control plane shares.

Authentication, errors over gRPC, finding the leader, logging, life cycle, metrics.
"""
