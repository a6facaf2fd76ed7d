import sys

if __name__ == "__main__":
    from os import getcwd  # the interpreter has loaded it before

    if sys.path[:1] == [getcwd()]:  # `python -m` puts the user's folder first, where a file may be called torch.py
        del sys.path[0]
    from fewlabels.cli import main

    main()
