"""What the metaserver does with its state: replication, fencing, forming, answering."""
