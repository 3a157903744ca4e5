"""A runtime for MLServer that loads a bundle's graph; it runs in MLServer's environment, without Tidemill."""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        uri = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {tensor.name: tensor for tensor in payload.inputs}
        feed = {}
        for wanted in self.session.get_inputs():
            if wanted.name not in given:
                raise InferenceError(f"The input {wanted.name!r} is missing.")
            feed[wanted.name] = self._decoded(given[wanted.name], wanted.type == "tensor(string)")
        names = [o.name for o in payload.outputs] if payload.outputs else [o.name for o in self.session.get_outputs()]
        outputs = []
        for name, values in zip(names, self.session.run(names, feed), strict=True):
            if values.dtype == object:
                outputs.append(StringCodec.encode_output(name, values.tolist()))
            else:
                outputs.append(NumpyCodec.encode_output(name, values))
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)

    @staticmethod
    def _decoded(tensor, text):
        try:
            if text:
                return np.array(StringCodec.decode_input(tensor), dtype=object).reshape(tensor.shape)
            return np.asarray(NumpyCodec.decode_input(tensor), dtype=np.float64).reshape(tensor.shape)
        except (ValueError, TypeError) as error:
            raise InferenceError(f"The input {tensor.name!r} does not fit ({error}).") from error
