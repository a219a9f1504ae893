"""Turns preferences into adapters: train.dpo for the aligned model, train.npo for the negative one."""
