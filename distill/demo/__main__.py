"""`python -m distill.demo --out DIR`: render the demo's data set and train its black box."""

import sys

from distill.demo.build import main

if __name__ == "__main__":
    sys.exit(main())
