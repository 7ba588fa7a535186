"""What is optimised: each objective turns a batch into a summed loss and the count it is over."""
