// Finds the faces in a photograph with nothing but the exported ONNX file and onnxruntime: no Python.
import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";

/** Reads a binary PPM with 8 bits a channel as uint8 [3, height, width]. */
function readPpm(path) {
  const bytes = readFileSync(path);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  if (!header) throw new Error(`${path}: no readable binary PPM with 8 bits a channel`);
  const [width, height] = [Number(header[1]), Number(header[2])];
  const pixels = bytes.subarray(header[0].length);
  if (pixels.length < 3 * width * height) throw new Error(`${path}: fewer pixels than its header says`);
  const planes = new Uint8Array(3 * height * width);
  for (let at = 0; at < height * width; at++)
    for (let channel = 0; channel < 3; channel++) planes[channel * height * width + at] = pixels[3 * at + channel];
  return new Tensor("uint8", planes, [3, height, width]);
}

const [model, photo] = process.argv.slice(2);
if (!photo) throw new Error("usage: node faces.mjs faces.onnx photo.ppm");
const session = await InferenceSession.create(model);
const faces = await session.run({ [session.inputNames[0]]: readPpm(photo) });
const [boxes, scores] = session.outputNames.map((name) => faces[name]);
for (let face = 0; face < boxes.dims[0]; face++) {
  const edges = Array.from(boxes.data.subarray(4 * face, 4 * face + 4), (edge) => edge.toFixed(1));
  console.log(`${scores.data[face].toFixed(4)}  ${edges.join(" ")}`);
}
if (!boxes.dims[0]) console.log("no faces");
