import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as FastCheck from "fast-check"
import { toFile } from "openai"
import type OpenAI from "openai"
import { all, call, refused, start } from "./OfficialClient.ts"

/** 16-bit mono at 8 kHz. */
const wav = (seconds: number, fill = 0): Buffer => {
  const samples = Buffer.alloc(Math.round(seconds * 8000) * 2, fill)
  const head = Buffer.from(
    "RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\x02\0\x10\0data\0\0\0\0",
    "latin1"
  )
  head.writeUInt32LE(36 + samples.length, 4)
  head.writeUInt32LE(8000, 24)
  head.writeUInt32LE(16_000, 28)
  head.writeUInt32LE(samples.length, 40)
  return Buffer.concat([head, samples])
}

/** Frames of MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes that last 26 ms. */
const mp3 = (frames: number): Buffer =>
  Buffer.concat(
    Array.from({ length: frames }, () => Buffer.concat([Buffer.from("fffb9044", "hex"), Buffer.alloc(413)]))
  )

const file = (bytes: Buffer, name = "meeting.wav") => toFile(bytes, name)

const read = async (client: OpenAI, bytes: Buffer, name: string) => {
  const reply = await client.audio.transcriptions.create({
    file: await file(bytes, name),
    model: "whisper-1",
    response_format: "verbose_json"
  })
  return reply.duration
}

const duration = (client: OpenAI, bytes: Buffer, name: string) => call(() => read(client, bytes, name))

describe("transcriptions of the official client", () => {
  it.effect("come in every format, the same text each time", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const sound = yield* call(() => file(wav(8)))
      const common = { file: sound, model: "whisper-1" }
      const json = yield* call(() => client.audio.transcriptions.create(common))
      assert.isAbove(json.text.split(" ").length, 10)
      assert.deepStrictEqual(json.usage, { type: "duration", seconds: 8 })
      const text = yield* call(() =>
        client.audio.transcriptions.create({ ...common, response_format: "text" })
      )
      assert.strictEqual(text.trim(), json.text)
      const verbose = yield* call(() =>
        client.audio.transcriptions.create({
          ...common,
          language: "de",
          response_format: "verbose_json",
          timestamp_granularities: ["word", "segment"]
        })
      )
      assert.deepInclude(verbose, { duration: 8, language: "german", text: json.text })
      const segments = verbose.segments ?? []
      assert.strictEqual(segments.map((segment) => segment.text.trim()).join(" "), json.text)
      assert.strictEqual(segments[0]?.start, 0)
      assert.approximately(segments.at(-1)?.end ?? 0, 8, 0.01)
      const words = verbose.words ?? []
      assert.strictEqual(words.length, json.text.split(" ").length)
      for (const [index, { end, start: begin }] of words.entries()) {
        assert.isTrue(begin < end && begin >= (words[index - 1]?.end ?? 0))
      }
      const srt = yield* call(() => client.audio.transcriptions.create({ ...common, response_format: "srt" }))
      assert.match(srt, /^1\n00:00:00,000 --> 00:00:0\d,\d{3}\n\S/)
      const vtt = yield* call(() => client.audio.transcriptions.create({ ...common, response_format: "vtt" }))
      assert.match(vtt, /^WEBVTT\n\n00:00:00\.000 --> 00:00:0\d\.\d{3}\n\S/)
      const other = yield* call(async () =>
        client.audio.transcriptions.create({ model: "whisper-1", file: await file(wav(8, 1)) })
      )
      assert.notStrictEqual(other.text, json.text, "other sound, other words")
    })
  )

  it.effect("stream as deltas that add up to the text", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const sound = yield* call(() => file(wav(5)))
      const common = { file: sound, model: "gpt-4o-mini-transcribe" }
      const whole = yield* call(() => client.audio.transcriptions.create(common))
      const stream = yield* call(() =>
        client.audio.transcriptions.create({ ...common, stream: true, include: ["logprobs"] })
      )
      const events = yield* all(() => stream)
      const text = events.map((event) => (event.type === "transcript.text.delta" ? event.delta : "")).join("")
      assert.strictEqual(text, whole.text)
      const done = events.at(-1)
      if (done?.type !== "transcript.text.done") throw new Error("the last event is not done")
      assert.strictEqual(done.text, whole.text)
      assert.deepStrictEqual(done.usage, whole.usage)
      assert.strictEqual(done.logprobs?.length, events.length - 1)
      assert.isAbove(done.usage?.input_tokens ?? 0, 0)
    })
  )

  it.effect("know the languages with gpt-transcribe, and the speakers with the diarizing model", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const sound = yield* call(() => file(wav(20)))
      const modern = yield* call(() =>
        client.audio.transcriptions.create({ file: sound, model: "gpt-transcribe" })
      )
      assert.deepStrictEqual(modern.languages, [{ code: "en" }])
      const spoken = yield* call(() =>
        client.audio.transcriptions.create({
          file: sound,
          model: "gpt-4o-transcribe-diarize",
          response_format: "diarized_json"
        })
      )
      if (!("segments" in spoken && "duration" in spoken)) throw new Error("no segments")
      assert.strictEqual(spoken.duration, 20)
      assert.sameMembers(
        [...new Set(JSON.stringify(spoken.segments).match(/"speaker":"\w+"/g))],
        ['"speaker":"A"', '"speaker":"B"']
      )
    })
  )

  it.effect("break off by a fault", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      const sound = yield* call(() => file(wav(5)))
      const stream = yield* call(() =>
        client.audio.transcriptions.create({
          file: sound,
          model: "gpt-4o-transcribe+fault=cut:3",
          stream: true
        })
      )
      const events = yield* all(() => stream)
      assert.deepStrictEqual(
        events.map(({ type }) => type),
        Array.from({ length: 3 }, () => "transcript.text.delta")
      )
      const entry = yield* simulator.journal.awaitEntry((seen) => !seen.open)
      assert.deepInclude(entry, {
        model: "gpt-4o-transcribe",
        stream: true,
        outcome: "faulted",
        contentEventsSent: 3
      })
    })
  )
})

describe("the length of a file", () => {
  it.effect("is read from WAV and MP3", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      yield* Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(FastCheck.integer({ min: 1, max: 600 }), async (tenths) => {
            const seconds = await read(client, wav(tenths / 10), "a.wav")
            assert.approximately(seconds, tenths / 10, 0.001)
          }),
          { numRuns: 15 }
        )
      )
      assert.approximately(yield* duration(client, mp3(100), "a.mp3"), 2.612, 0.001)
      const tag = Buffer.from("ID3\x03\0\0\0\0\0\x0a0123456789", "latin1")
      assert.approximately(yield* duration(client, Buffer.concat([tag, mp3(10)]), "a.mp3"), 0.261, 0.001)
      const streamed = wav(3)
      streamed.writeUInt32LE(0xffff_ffff, 40)
      assert.approximately(yield* duration(client, streamed, "a.wav"), 3, 0.001)
    })
  )

  it.effect("is read from MP4 and WebM, and guessed where a recorder left it out", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const box = (name: string, content: Buffer) => {
        const head = Buffer.alloc(8)
        head.writeUInt32BE(8 + content.length)
        head.write(name, 4)
        return Buffer.concat([head, content])
      }
      const header = Buffer.alloc(100)
      header.writeUInt32BE(1000, 12)
      header.writeUInt32BE(4500, 16)
      const mp4 = Buffer.concat([box("ftyp", Buffer.from("M4A ")), box("moov", box("mvhd", header))])
      assert.strictEqual(yield* duration(client, mp4, "a.m4a"), 4.5)
      const webm = Buffer.from("1a45dfa32ad7b1830f424044898840b3880000000000", "hex")
      assert.strictEqual(yield* duration(client, webm, "a.webm"), 5)
      const recorded = Buffer.concat([Buffer.from("1a45dfa3", "hex"), Buffer.alloc(32_000)])
      assert.approximately(yield* duration(client, recorded, "a.webm"), 2, 0.01)
    })
  )

  it.effect("does not trust what a broken file claims", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      yield* Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(
            FastCheck.constantFrom(
              "RIFF0000WAVEfmt ",
              "OggS",
              "fLaC",
              "0000ftyp",
              "\x1a\x45\xdf\xa3",
              "ID3",
              "\xff\xfb\x90\x44"
            ),
            FastCheck.uint8Array({ maxLength: 200 }),
            async (magic, rest) => {
              const bytes = Buffer.concat([Buffer.from(magic, "latin1"), rest])
              const status = await client.audio.transcriptions
                .create({ file: await file(bytes, "a.ogg"), model: "whisper-1" })
                .then(
                  () => 200,
                  (error) => error.status
                )
              assert.include([200, 400], status)
            }
          ),
          { numRuns: 60 }
        )
      )
    })
  )
})

describe("translations of the official client", () => {
  it.effect("are English", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const sound = yield* call(() => file(wav(4)))
      const plain = yield* call(() => client.audio.translations.create({ file: sound, model: "whisper-1" }))
      assert.deepStrictEqual(Object.keys(plain), ["text"])
      const verbose = yield* call(() =>
        client.audio.translations.create({ file: sound, model: "whisper-1", response_format: "verbose_json" })
      )
      if (!("language" in verbose && "duration" in verbose)) throw new Error("not verbose")
      assert.deepStrictEqual([verbose.language, verbose.duration, verbose.text], ["english", 4, plain.text])
    })
  )
})

describe("speech of the official client", () => {
  it.effect.each([
    ["wav", "audio/wav"],
    ["mp3", "audio/mpeg"],
    ["flac", "audio/flac"],
    ["opus", "audio/opus"]
  ] as const)("as %s is understood again", ([format, type]) =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const say = (input: string) =>
        call(async () => {
          const reply = await client.audio.speech.create({
            model: "gpt-4o-mini-tts",
            voice: "coral",
            input,
            response_format: format
          })
          assert.strictEqual(reply.headers.get("content-type"), type)
          return Buffer.from(await reply.arrayBuffer())
        })
      const input = "Ten words make a sound that lasts for four seconds."
      const sound = yield* say(input)
      const name = `a.${format === "opus" ? "ogg" : format}`
      assert.approximately(yield* duration(client, sound, name), 4, 0.2)
      assert.notDeepEqual(yield* say(input.replace("Ten", "Few")), sound)
      const heard = yield* call(async () =>
        client.audio.transcriptions.create({ file: await file(sound, name), model: "gpt-transcribe" })
      )
      assert.strictEqual(heard.text, input)
    })
  )

  it.effect("comes as raw samples, as AAC and as events too", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const common = { model: "gpt-4o-mini-tts", voice: "coral", input: "five words in two seconds" }
      const pcm = yield* call(() => client.audio.speech.create({ ...common, response_format: "pcm" }))
      assert.strictEqual((yield* call(() => pcm.arrayBuffer())).byteLength, 2 * 24_000 * 2)
      const aac = yield* call(() => client.audio.speech.create({ ...common, response_format: "aac" }))
      const frames = Buffer.from(yield* call(() => aac.arrayBuffer()))
      assert.strictEqual(frames.length % 13, 0)
      for (let at = 0; at < frames.length; at += 13) assert.strictEqual(frames.readUInt16BE(at), 0xfff1)
      const events = yield* call(() => client.audio.speech.create({ ...common, stream_format: "sse" }))
      const text = yield* call(() => events.text())
      assert.match(text, /^data: \{"type":"speech.audio.delta","audio":"[\w+/=]+"\}\n\n/)
      assert.match(text, /data: \{"type":"speech.audio.done","usage":\{"input_tokens":5,.*\}\}\n\n$/)
    })
  )
})

describe("bad input", () => {
  it.effect("is refused as OpenAI does it", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const transcribe = (
        bytes: Buffer,
        name: string,
        more?: Partial<OpenAI.Audio.TranscriptionCreateParams>
      ) =>
        refused(async () =>
          client.audio.transcriptions.create({
            file: await file(bytes, name),
            model: "whisper-1",
            ...more,
            stream: false
          })
        )
      assert.deepStrictEqual(yield* transcribe(wav(1), "a.txt"), {
        status: 400,
        type: "invalid_request_error",
        code: null,
        param: null,
        message:
          "Invalid file format. Supported formats: ['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']"
      })
      assert.include((yield* transcribe(Buffer.from("no sound"), "a.wav")).message, "could not be decoded")
      assert.deepInclude(yield* transcribe(wav(0.05), "a.wav"), { status: 400, code: "audio_too_short" })
      assert.deepInclude(yield* transcribe(Buffer.alloc(26_214_401), "a.wav"), {
        status: 413,
        type: "server_error",
        message: "Maximum content size limit (26214400) exceeded (26214401 bytes read)"
      })
      assert.deepInclude(yield* transcribe(wav(1), "a.wav", { language: "klingon" }), { param: "language" })
      const format = yield* transcribe(wav(1), "a.wav", {
        model: "gpt-4o-transcribe",
        response_format: "srt"
      })
      assert.deepInclude(format, { status: 400, param: "response_format", code: "unsupported_value" })
      const words = yield* transcribe(wav(1), "a.wav", { timestamp_granularities: ["word"] })
      assert.strictEqual(words.param, "timestamp_granularities")
      const speak = (body: Partial<OpenAI.Audio.SpeechCreateParams>) =>
        refused(() => client.audio.speech.create({ model: "tts-1", voice: "ash", input: "x", ...body }))
      assert.deepInclude(yield* speak({ input: "x".repeat(4097) }), { status: 400, param: "input" })
      assert.deepInclude(yield* speak({ speed: 5 }), { status: 400, param: "speed" })
      assert.deepInclude(yield* speak({ stream_format: "sse" }), { status: 400, param: "stream_format" })
    })
  )
})
