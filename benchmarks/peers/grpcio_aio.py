"""ModelInfer of the open protocol by grpcio, without guards or a log: `python grpcio_aio.py MODEL PORT`."""

import sys

import grpc
import numpy as np
import onnxruntime
import uvloop
from tritonclient.grpc import service_pb2 as pb

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


async def infer(request, context):
    tensor = request.inputs[0]
    rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(tensor.shape))
    found = session.run(None, {"numeric": rows})[0]
    answer = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    answer.outputs.add(name="probabilities", datatype="FP32", shape=found.shape)
    answer.raw_output_contents.append(found.tobytes())
    labels = [b"yes" if yes >= 0.5 else b"no" for _, yes in found.tolist()]
    answer.outputs.add(name="label", datatype="BYTES", shape=[len(labels)])
    answer.raw_output_contents.append(b"".join([len(one).to_bytes(4, "little") + one for one in labels]))
    return answer


async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})]
    )
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    await server.start()
    await server.wait_for_termination()


uvloop.run(main())
