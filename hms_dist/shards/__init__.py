"""The format of shard sets, shared by the offline and the online half."""
