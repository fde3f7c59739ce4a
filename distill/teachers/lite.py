"""`python -m distill.teachers.lite OUT`: write EfficientNet-Lite's ImageNet weights as a black box's model files."""

import sys

from distill.teachers.tools.efficientnet_lite import main

if __name__ == "__main__":
    sys.exit(main())
