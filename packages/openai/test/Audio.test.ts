import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Stream } from "effect"
import { Audio, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as Joined from "../src/internal/joinedTranscript.ts"
import * as WaveFile from "../src/internal/waveFile.ts"
import { faultTable } from "./support/FaultTable.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"
import * as Mp3 from "./support/Mp3.ts"
import * as Wave from "./support/Wave.ts"

const audio = Effect.map(OpenAi.OpenAi, (openai) => openai.audio)

/** Every model that speaks or gives subtitles has an announced end: its warnings are tested elsewhere. */
const simulated = (options?: Parameters<typeof Upstream.simulated>[0]) =>
  Layer.merge(Upstream.simulated(options), Logger.layer([]))

/** Someone speaks, and pauses for half a second in every four. */
const spoken = (seconds: number, rate = 8000) =>
  Wave.make({ rate, seconds, sample: (at) => (at % (4 * rate) < rate / 2 ? 0 : Math.sin(at / 9) / 3) })

const short = spoken(8)
const filename = "meeting.wav"
const whisper = { model: "whisper-1", filename }
const asked = { model: "gpt-transcribe", filename, file: short }

/** 26.4 MB: 137.5 s of two channels at 48 kHz. */
const large = Wave.make({
  rate: 48_000,
  channels: 2,
  seconds: 137.5,
  sample: (at) => (at % 192_000 < 24_000 ? 0 : (at % 97) / 300)
})

const texts = (events: ReadonlyArray<Audio.TranscriptionEvent>) =>
  events.map((event) => (event.type === "transcript.text.delta" ? event.delta : "")).join("")

describe("transcribe", () => {
  it.live("gives the same words in every format", () =>
    Effect.gen(function* () {
      const { transcribe } = yield* audio
      const request = { ...whisper, file: short }
      const { text, usage } = yield* transcribe(request)
      assert.isAbove(text.split(" ").length, 10)
      assert.deepStrictEqual(usage, { type: "duration", seconds: 8 })
      assert.strictEqual(Audio.usageOf({ usage })?.audioSeconds, 8)
      assert.strictEqual(yield* transcribe({ ...request, response_format: "text" }), text)
      const verbose = yield* transcribe({
        ...request,
        response_format: "verbose_json",
        timestamp_granularities: ["word", "segment"]
      })
      assert.deepInclude({ ...verbose }, { text, duration: 8, language: "english" })
      assert.strictEqual(verbose.segments?.map((segment) => segment.text.trim()).join(" "), text)
      assert.lengthOf(verbose.words ?? [], text.split(" ").length)
      assert.match(yield* transcribe({ ...request, response_format: "srt" }), /^1\n00:00:00,000 --> /u)
      assert.match(
        yield* transcribe({ ...request, response_format: "vtt" }),
        /^WEBVTT\n\n00:00:00\.000 --> /u
      )
      const diarized = yield* transcribe({
        ...request,
        model: "gpt-4o-transcribe-diarize",
        response_format: "diarized_json"
      })
      assert.strictEqual(diarized.segments.map((segment) => segment.text).join(" "), text)
      assert.deepStrictEqual([...new Set(diarized.segments.map(({ speaker }) => speaker))], ["A", "B"])
    }).pipe(Effect.provide(simulated()))
  )

  it.live("takes bytes, a Blob and a stream alike, and tells the server all that it was told", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      const heard = yield* transcribe(asked)
      assert.deepStrictEqual(heard.languages, [{ code: "en" }])
      for (const file of [
        new Blob([short]),
        { size: short.length, stream: Stream.make(short.subarray(0, 999), short.subarray(999)) }
      ]) {
        assert.strictEqual((yield* transcribe({ ...asked, file })).text, heard.text)
      }
      const more = yield* transcribe({
        ...asked,
        language: "de",
        prompt: "ferries",
        include: ["logprobs"],
        chunking_strategy: { type: "server_vad", threshold: 0.5 }
      })
      assert.deepStrictEqual(more.languages, [{ code: "de" }])
      assert.isAbove(more.logprobs?.length ?? 0, 5)
      const entry = (yield* journal.entries).at(-1)
      assert.match(String(entry?.headers["content-type"]), /^multipart\/form-data/u)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("sends the file once more where the first attempt fails", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      yield* script(Scenario.sequence(["status:503;retry-after-ms=1", "reset:headers", null]))
      assert.isNotEmpty((yield* transcribe(asked)).text)
    }).pipe(Effect.provide(simulated()))
  )

  it.live.each([
    ["meeting.mp3", new Uint8Array(26_214_401)],
    ["meeting.wav", { size: 26_214_401, stream: Stream.die("not read") }],
    ["meeting.wav", new Uint8Array(26_214_401)]
  ] as const)("sends nothing of %s above 25 MB that it cannot split", ([name, file]) =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { transcribe, transcribeStream, translate } = yield* audio
      const request = { ...whisper, filename: name, file }
      for (const call of [
        Effect.asVoid(transcribe(request)),
        Effect.asVoid(translate(request)),
        Stream.runDrain(transcribeStream({ ...request, model: "gpt-transcribe" }))
      ]) {
        const error = yield* Effect.flip(call)
        assert.deepInclude({ ...error }, { _tag: "RequestTooLarge", attempts: 0, param: "file" })
        assert.match(error.message, /26214401 bytes of at most 26214400: split it/u)
        assert.include(error.hint, "smaller files")
      }
      assert.isEmpty(yield* journal.entries)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("keeps speakers together: such a file is not split", () =>
    Effect.gen(function* () {
      const { transcribe } = yield* audio
      const error = yield* Effect.flip(
        transcribe({ ...asked, file: large, response_format: "diarized_json" })
      )
      assert.deepInclude({ ...error }, { _tag: "RequestTooLarge", attempts: 0 })
      assert.include(error.message, "speakers")
    }).pipe(Effect.provide(simulated()))
  )

  it.live("sends nothing of a large file without a sound in it", () =>
    Effect.gen(function* () {
      const { transcribe } = yield* audio
      const head = Wave.make({ rate: 8000, seconds: 0 })
      // Half a sample, and then no sound any more.
      head[40] = 1
      const file = new Blob([head, new Uint8Array(26_214_400)])
      const error = yield* Effect.flip(transcribe({ ...asked, file }))
      assert.include(error.message, "no sound")
      assert.deepInclude({ ...error }, { _tag: "RequestTooLarge", attempts: 0 })
    }).pipe(Effect.provide(simulated()))
  )

  it.live.each([0.5, 0, -1, Number.NaN])("takes no parts of %d seconds", (partSeconds) =>
    Effect.gen(function* () {
      const { transcribe } = yield* audio
      const error = yield* Effect.flip(transcribe({ ...asked, partSeconds }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 0, param: "partSeconds" })
    }).pipe(Effect.provide(simulated()))
  )

  it.live("tells of a Blob that cannot be read", () =>
    Effect.gen(function* () {
      const { transcribe } = yield* audio
      class Gone extends Blob {
        override slice(): Blob {
          const part = super.slice()
          part.arrayBuffer = () => Promise.reject(new Error("gone"))
          return part
        }
      }
      const file = new Gone([short])
      const error = yield* Effect.flip(transcribe({ ...asked, file, partSeconds: 5 }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 0, param: "file" })
    }).pipe(Effect.provide(simulated()))
  )
})

describe("a long WAV file", () => {
  /** Each part by itself, with the times of the whole. */
  const parts = Effect.gen(function* () {
    const file = yield* WaveFile.open(large)
    if (file === undefined) return yield* Effect.die(new Error("no WAV file"))
    return yield* WaveFile.split(file, { maxBytes: 26_214_400 - 1_048_576, maxSeconds: Infinity })
  })

  it.live("larger than the limit is sent in parts, and its transcript is that of the parts joined", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      assert.isAbove(large.length, 26_214_400)
      const pieces = yield* parts
      assert.lengthOf(pieces, 2)
      const verbosely = {
        ...whisper,
        response_format: "verbose_json",
        timestamp_granularities: ["word", "segment"]
      } as const
      const heard = yield* Effect.forEach(pieces, ({ content, ...place }) =>
        Effect.map(
          transcribe({ ...verbosely, file: content, timestamp_granularities: ["word", "segment"] }),
          (reply) => ({
            ...place,
            reply
          })
        )
      )
      yield* journal.clear
      const whole = yield* transcribe({
        ...verbosely,
        file: new Blob([large]),
        timestamp_granularities: ["word", "segment"]
      })
      assert.lengthOf(yield* journal.entries, 2)
      assert.strictEqual(whole.text, heard.map(({ reply }) => reply.text).join(" "))
      assert.strictEqual(whole.duration, 137.5)
      assert.deepStrictEqual(whole.usage, {
        type: "duration",
        seconds: heard.reduce((sum, { seconds }) => sum + Math.ceil(seconds), 0)
      })
      const segments = whole.segments ?? []
      assert.strictEqual(segments.map(({ text }) => text.trim()).join(" "), whole.text)
      assert.deepStrictEqual(
        segments.map(({ id }) => id),
        segments.map((_, index) => index)
      )
      const expected = heard.flatMap(({ reply, start }) =>
        (reply.words ?? []).map((word) => ({ word: word.word, start: word.start + start }))
      )
      assert.lengthOf(whole.words ?? [], expected.length)
      for (const [index, { start, word }] of expected.entries()) {
        assert.strictEqual(whole.words?.[index]?.word, word)
        assert.approximately(whole.words?.[index]?.start ?? 0, start, 1e-4)
      }
      assert.isTrue(segments.every(({ start }, index) => start >= (segments[index - 1]?.end ?? 0)))
      assert.approximately(segments.at(-1)?.end ?? 0, 137.5, 0.02)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("of a bounded length gives one text and one row of subtitles", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { transcribe, translate } = yield* audio
      const request = { ...whisper, file: spoken(21), partSeconds: 6 }
      const { text } = yield* transcribe(request)
      const count = (yield* journal.entries).length
      assert.isAbove(count, 3)
      assert.strictEqual(yield* transcribe({ ...request, response_format: "text" }), text)
      const srt = yield* transcribe({ ...request, response_format: "srt" })
      const cues = srt.trimEnd().split("\n\n")
      assert.deepStrictEqual(
        cues.map((cue) => cue.split("\n")[0]),
        cues.map((_, index) => String(index + 1))
      )
      assert.strictEqual(cues.map((cue) => cue.split("\n")[2]).join(" "), text)
      assert.match(cues.at(-1) ?? "", /--> 00:00:(?:20,9|21,0)\d\d\n/u)
      const vtt = yield* transcribe({ ...request, response_format: "vtt" })
      assert.strictEqual(vtt.split("WEBVTT").length, 2)
      assert.strictEqual(
        vtt,
        `WEBVTT\n\n${cues
          .map(
            (cue) =>
              `${cue
                .split("\n")
                .slice(1)
                .join("\n")
                .replace(/(\d),(\d{3})/gu, "$1.$2")}\n\n`
          )
          .join("")}`
      )
      const translated = yield* translate({ ...request, response_format: "verbose_json" })
      assert.strictEqual(translated.duration, 21)
      assert.strictEqual((yield* journal.entries).length, 5 * count)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("is split for gpt-4o-transcribe, which takes 25 minutes, and for no other model", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      const file = Wave.make({ rate: 800, bits: 8, seconds: 1500 })
      for (const [model, requests] of [
        ["gpt-4o-transcribe", 2],
        ["gpt-4o-mini-transcribe", 2],
        ["gpt-transcribe", 1]
      ] as const) {
        yield* journal.clear
        yield* transcribe({ ...asked, model, file })
        assert.lengthOf(yield* journal.entries, requests)
      }
    }).pipe(Effect.provide(simulated()))
  )

  it.live("fails with the part that fails, and gives the others up", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      yield* script(Scenario.sequence(["no-headers", "status:400", "no-headers"]))
      const error = yield* Effect.flip(transcribe({ ...asked, file: spoken(17), partSeconds: 6 }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", operation: "audio.transcriptions.create" })
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitIdle
    }).pipe(Effect.provide(simulated()))
  )

  it.live("stops all parts when its caller leaves", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      yield* script(Scenario.always("no-headers"))
      const fiber = yield* Effect.forkChild(transcribe({ ...asked, file: spoken(17), partSeconds: 6 }))
      yield* journal.awaitEntry((entry) => entry.open)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(simulated()))
  )
})

describe("a long MP3 file", () => {
  it.live("larger than the limit is sent in parts, each of them an MP3 file", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { transcribe } = yield* audio
      // 320 kbit/s: 1,045 bytes a frame.
      const frames = 25_500
      const file = new Blob([Mp3.make({ frames, bitRate: () => 14, byte: (at) => at % 251 })])
      assert.isAbove(file.size, 26_214_400)
      const request = { model: "whisper-1", filename: "meeting.mp3", file }
      const whole = yield* transcribe({ ...request, response_format: "verbose_json" })
      assert.lengthOf(yield* journal.entries, 2)
      assert.approximately(whole.duration, frames * Mp3.secondsPerFrame(1), 0.02)
      const segments = whole.segments ?? []
      assert.isTrue(segments.every(({ start }, index) => start >= (segments[index - 1]?.end ?? 0)))
      assert.strictEqual(segments.map(({ text }) => text.trim()).join(" "), whole.text)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("of a bounded length gives one text of all its parts", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { speak, transcribe } = yield* audio
      const file = yield* speak({
        model: "gpt-4o-mini-tts",
        voice: "alloy",
        input: "The ferry leaves at nine. ".repeat(12),
        response_format: "mp3"
      })
      yield* journal.clear
      const request = { model: "gpt-transcribe", filename: "ferry.mp3", file, partSeconds: 6 }
      assert.isNotEmpty((yield* transcribe(request)).text)
      assert.isAbove((yield* journal.entries).length, 1)
    }).pipe(Effect.provide(simulated()))
  )
})

describe("parts put together", () => {
  it("join texts with a space, where their script has one", () => {
    assert.strictEqual(Joined.text([" One. ", "", "Two.\n"]), "One. Two.")
    assert.strictEqual(Joined.text(["今日は。", "いい天気", "ですね"]), "今日は。いい天気ですね")
    assert.strictEqual(Joined.text([]), "")
  })

  it("move subtitles over the hour, whatever their line ends, and keep lines that look like times", () => {
    const cue = "1\r\n00:00:01,500 --> 00:00:02,000\r\nAt 10:30,250 --> go\r\nTwo.\r\n\r\n"
    assert.strictEqual(
      Joined.srt([
        { start: 0, seconds: 1, reply: "" },
        { start: 3599, seconds: 4, reply: cue }
      ]),
      "1\n01:00:00,500 --> 01:00:01,000\nAt 10:30,250 --> go\nTwo.\n\n"
    )
    assert.strictEqual(
      Joined.vtt([
        { start: 0, seconds: 60, reply: "WEBVTT\n\n00:01.000 --> 00:02.000\nOne.\n" },
        {
          start: 60,
          seconds: 4,
          reply: "WEBVTT - x\n\nNOTE y\n\nid\n00:01.000 --> 00:02.000 align:start\nTwo.\n\n"
        }
      ]),
      "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nOne.\n\n00:01:01.000 --> 00:01:02.000 align:start\nTwo.\n\n"
    )
  })

  it("add up what each was billed", () => {
    const tokens = (input_tokens: number) => ({
      type: "tokens",
      input_tokens,
      input_token_details: { audio_tokens: input_tokens }
    })
    assert.deepStrictEqual(Joined.sum([tokens(3), undefined, tokens(4)]), tokens(7))
    assert.isUndefined(Joined.sum([undefined, undefined]))
  })
})

describe("transcribeStream", () => {
  const stream = (request: Partial<Audio.TranscriptionStreamRequest> = {}) =>
    Stream.unwrap(Effect.map(audio, ({ transcribeStream }) => transcribeStream({ ...asked, ...request })))

  it.live("gives the words as they come, and ends with all of them", () =>
    Effect.gen(function* () {
      const { transcribe } = yield* audio
      const { text } = yield* transcribe(asked)
      const events = yield* Stream.runCollect(stream())
      assert.isAbove(events.length, 5)
      assert.strictEqual(texts(events), text)
      assert.deepInclude({ ...events.at(-1) }, { type: "transcript.text.done", text })
      const spokenBy = yield* Stream.runCollect(
        stream({ model: "gpt-4o-transcribe-diarize", response_format: "diarized_json" })
      )
      const [first] = spokenBy
      assert.deepInclude({ ...first }, { type: "transcript.text.segment", speaker: "A", start: 0 })
    }).pipe(Effect.provide(simulated()))
  )

  it.live("fails where it ends early, with the words so far", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      for (const [fault, reason] of [
        ["no-finish", "closed"],
        ["cut:3", "closed"],
        ["reset:3", "reset"],
        ["error-event:3", "error"]
      ] as const) {
        yield* script(Scenario.always(fault))
        const seen: Array<Audio.TranscriptionEvent> = []
        const error = yield* Effect.flip(
          Stream.runForEach(stream(), (event) => Effect.sync(() => void seen.push(event)))
        )
        assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", attempts: 1 }, fault)
        if (error._tag !== "StreamInterrupted") continue
        assert.strictEqual(error.reason, reason, fault)
        assert.isNotEmpty(seen)
        assert.strictEqual(error.partial, texts(seen))
      }
    }).pipe(Effect.provide(simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("is tried again before its first words, and not after", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:503;retry-after-ms=1", "reset:0", null]))
      assert.isNotEmpty(texts(yield* Stream.runCollect(stream())))
      assert.lengthOf(yield* journal.entries, 3)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("is not asked of whisper-1, which would answer at once", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(Stream.runDrain(stream({ model: "whisper-1" })))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 0, param: "model" })
      assert.isEmpty(yield* journal.entries)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("keeps an event that nobody knows, and fails for one that is not what it should be", () =>
    Effect.gen(function* () {
      const event = (json: object) => `data: ${JSON.stringify(json)}\n\n`
      const delta = event({ type: "transcript.text.delta", delta: "Hi" })
      const done = event({ type: "transcript.text.done", text: "Hi" })
      const answer = (...events: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const server = yield* RawServer.make(({ socket }) =>
            socket.write(RawServer.response(200, events.join(""), { "content-type": "text/event-stream" }))
          )
          return yield* Effect.result(Effect.provide(Stream.runCollect(stream()), Upstream.at(server.url)))
        })
      const kept = yield* answer(delta, event({ type: "transcript.mood", mood: 1 }), done, "data: [DONE]\n\n")
      assert.deepStrictEqual<unknown>(kept._tag === "Success" ? kept.success[1] : kept, {
        type: "unknown",
        name: "transcript.mood",
        raw: { type: "transcript.mood", mood: 1 }
      })
      const wrong = yield* answer(delta, event({ type: "transcript.text.done" }))
      assert.strictEqual(wrong._tag === "Failure" ? wrong.failure._tag : "", "MalformedResponse")
      const refused = yield* answer(event({ error: { message: "no", type: "server_error" } }))
      assert.strictEqual(refused._tag === "Failure" ? refused.failure._tag : "", "ServerError")
    })
  )
})

describe("speak", () => {
  const request = {
    model: "tts-next",
    voice: "alloy",
    input: "The ferry leaves at nine.",
    response_format: "wav"
  } as const

  it.live("gives the sound at once or as it comes, and it is understood again", () =>
    Effect.gen(function* () {
      const { speak, speakStream, transcribe } = yield* audio
      const sound = yield* speak(request)
      assert.strictEqual(Buffer.from(sound.subarray(0, 4)).toString("latin1"), "RIFF")
      const pieces = yield* Stream.runCollect(speakStream(request))
      assert.deepStrictEqual(Buffer.concat(pieces), Buffer.from(sound))
      assert.strictEqual((yield* transcribe({ ...asked, file: sound })).text, request.input)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("refuses a text that is too long", () =>
    Effect.gen(function* () {
      const { speak } = yield* audio
      const error = yield* Effect.flip(speak({ ...request, input: "x".repeat(4097) }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", operation: "audio.speech.create" })
    }).pipe(Effect.provide(simulated()))
  )

  faultTable({
    operation: "audio.speech.create",
    kind: "bytes",
    prepare: Effect.void,
    run: () => Effect.flatMap(audio, ({ speak }) => speak(request))
  })

  faultTable({
    operation: "audio.speech.create",
    kind: "stream",
    prepare: Effect.void,
    run: () => Effect.flatMap(audio, ({ speakStream }) => Stream.runDrain(speakStream(request)))
  })
})

describe("faults", () => {
  faultTable({
    operation: "audio.transcriptions.create",
    kind: "json",
    prepare: Effect.void,
    run: () => Effect.flatMap(audio, ({ transcribe }) => transcribe(asked))
  })
})
