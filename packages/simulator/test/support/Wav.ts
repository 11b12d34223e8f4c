/** A silent WAV file of so many seconds. */
export const make = (seconds: number): Buffer<ArrayBuffer> => {
  const rate = 8000
  const bytes = Buffer.alloc(44 + rate * seconds * 2)
  bytes.write("RIFF", 0, "latin1")
  bytes.writeUInt32LE(bytes.length - 8, 4)
  bytes.write("WAVEfmt ", 8, "latin1")
  bytes.writeUInt32LE(16, 16)
  bytes.writeUInt16LE(1, 20)
  bytes.writeUInt16LE(1, 22)
  bytes.writeUInt32LE(rate, 24)
  bytes.writeUInt32LE(rate * 2, 28)
  bytes.writeUInt16LE(2, 32)
  bytes.writeUInt16LE(16, 34)
  bytes.write("data", 36, "latin1")
  bytes.writeUInt32LE(bytes.length - 44, 40)
  return bytes
}
