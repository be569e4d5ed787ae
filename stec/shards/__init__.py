"""WebDataset shards: index, epoch order, reader, writer."""
