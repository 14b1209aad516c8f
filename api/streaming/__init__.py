"""The streaming API: each process reads the log itself and hands what happens to the viewers that it serves."""
