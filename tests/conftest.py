"""One thread for the whole test session: the models are tiny, and a busy machine makes two threads wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
