"""Events are scored as they come: from a broker, through the predictor, to another stream.

    receive → read → predict → publish → commit

`consumer` is the one loop, `brokers/` has a module for each broker, `aws_lambda` does the same without a loop.

Layer L3; each broker imports its own library when it is used.
"""
