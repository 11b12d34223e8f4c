/**
 * Clients that people have, unchanged but for base URL and key: each does through the gateway what it does without it.
 *
 * Every task runs twice, once at the simulator itself and once through the gateway; results and upstream requests must
 * be the same.
 */
import { createOpenAI } from "@ai-sdk/openai"
import { afterAll, assert, beforeAll, describe, it, vi } from "@effect/vitest"
import { HumanMessage, ToolMessage } from "@langchain/core/messages"
import { tool as langchainTool } from "@langchain/core/tools"
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai"
import { Agent, OpenAIProvider, Runner, tool as agentsTool } from "@openai/agents"
import { embedMany, generateText, isStepCount, Output, streamText, type ToolSet } from "ai"
import { Effect } from "effect"
import { NotFoundError, OpenAI, toFile } from "openai"
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod"
import { z } from "zod"
import * as RunningGateway from "./support/RunningGateway.ts"

/** Where a client is sent, and as whom. */
interface Server {
  readonly baseURL: string
  readonly apiKey: string
}

/** What a tool was called with, and what the model made of its answer. */
interface ToolUse {
  readonly input: unknown
  readonly answer: string
}

interface Client {
  readonly name: string
  readonly chat: (server: Server) => Promise<string>
  /** The pieces of the text. */
  readonly stream: (server: Server) => Promise<ReadonlyArray<string>>
  /** Calls the tool, hands its answer back, and gives the answer to that. */
  readonly tools: (server: Server) => Promise<ToolUse>
  readonly structured: (server: Server) => Promise<unknown>
  /** Of `texts`. */
  readonly embeddings?: (server: Server) => Promise<ReadonlyArray<ReadonlyArray<number>>>
}

const model = "gpt-6-luna"
const question = "Why is the sky blue?"
const toolQuestion = "Use get_weather for Paris"
const weatherQuestion = "What is the weather in Paris?"
const texts = ["Why is the sky blue?", "Why is it dark at night?"]
const embeddingModel = "text-embedding-3-small"

const Place = z.object({ city: z.string() })
const Weather = z.object({ city: z.string(), celsius: z.number(), sunny: z.boolean() })
const weather = { name: "get_weather", description: "The weather of a city" }
const sunny = "sunny, 21 degrees"

/** The tool's function, and what it was called with. */
const observed = () => {
  const inputs: Array<unknown> = []
  const run = async (input: unknown) => {
    inputs.push(input)
    return sunny
  }
  return { inputs, run }
}

const collect = async <A>(pieces: AsyncIterable<A>): Promise<Array<A>> => {
  const all: Array<A> = []
  for await (const piece of pieces) all.push(piece)
  return all
}

const openai = ({ apiKey, baseURL }: Server) => new OpenAI({ apiKey, baseURL })

const official: Client = {
  name: "openai, chat completions",
  chat: async (server) => {
    const messages = [{ role: "user" as const, content: question }]
    const reply = await openai(server).chat.completions.create({ model, messages })
    return reply.choices[0]?.message.content ?? ""
  },
  stream: async (server) => {
    const messages = [{ role: "user" as const, content: question }]
    const chunks = await collect(
      await openai(server).chat.completions.create({ model, messages, stream: true })
    )
    return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "")
  },
  tools: async (server) => {
    const { inputs, run } = observed()
    const runner = openai(server).chat.completions.runTools({
      model,
      messages: [{ role: "user", content: toolQuestion }],
      tools: [
        {
          type: "function",
          function: {
            ...weather,
            parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
            parse: (text: string) => Place.parse(JSON.parse(text)),
            function: run
          }
        }
      ]
    })
    return { answer: (await runner.finalContent()) ?? "", input: inputs[0] }
  },
  structured: async (server) => {
    const reply = await openai(server).chat.completions.parse({
      model,
      messages: [{ role: "user", content: weatherQuestion }],
      response_format: zodResponseFormat(Weather, "weather")
    })
    return reply.choices[0]?.message.parsed
  },
  embeddings: async (server) => {
    const { data } = await openai(server).embeddings.create({ model: embeddingModel, input: texts })
    return data.map(({ embedding }) => embedding)
  }
}

const officialResponses: Client = {
  name: "openai, responses",
  chat: async (server) => (await openai(server).responses.create({ model, input: question })).output_text,
  stream: async (server) => {
    const events = await collect(
      await openai(server).responses.create({ model, input: question, stream: true })
    )
    assert.strictEqual(events.at(-1)?.type, "response.completed")
    return events.flatMap((event) => (event.type === "response.output_text.delta" ? [event.delta] : []))
  },
  tools: async (server) => {
    const { responses } = openai(server)
    const { inputs, run } = observed()
    const tools = [{ type: "function" as const, ...weather, parameters: z.toJSONSchema(Place), strict: true }]
    const first = await responses.create({ model, input: toolQuestion, tools })
    const outputs = await Promise.all(
      first.output.flatMap((item) =>
        item.type === "function_call"
          ? [
              run(JSON.parse(item.arguments)).then((output) => ({
                type: "function_call_output" as const,
                call_id: item.call_id,
                output
              }))
            ]
          : []
      )
    )
    const last = await responses.create({ model, previous_response_id: first.id, input: outputs, tools })
    return { answer: last.output_text, input: inputs[0] }
  },
  structured: async (server) => {
    const reply = await openai(server).responses.parse({
      model,
      input: weatherQuestion,
      text: { format: zodTextFormat(Weather, "weather") }
    })
    return reply.output_parsed
  }
}

type VercelApi = "chat" | "responses"

const vercel = (api: VercelApi): Client => {
  const modelOf = (server: Server) => createOpenAI({ ...server })[api](model)
  return {
    name: `ai, ${api === "chat" ? "chat completions" : api}`,
    chat: async (server) => (await generateText({ model: modelOf(server), prompt: question })).text,
    stream: async (server) => {
      const parts = await collect(streamText({ model: modelOf(server), prompt: question }).stream)
      const failure = parts.find(({ type }) => type === "error")
      assert.isUndefined(failure)
      return parts.flatMap((part) => (part.type === "text-delta" ? [part.text] : []))
    },
    tools: async (server) => {
      const { inputs, run } = observed()
      const tools: ToolSet = {
        [weather.name]: { description: weather.description, inputSchema: Place, execute: run }
      }
      const { text } = await generateText({
        model: modelOf(server),
        prompt: toolQuestion,
        tools,
        stopWhen: isStepCount(3)
      })
      return { answer: text, input: inputs[0] }
    },
    structured: async (server) => {
      const { output } = await generateText({
        model: modelOf(server),
        prompt: weatherQuestion,
        output: Output.object({ schema: Weather })
      })
      return output
    },
    embeddings: async (server) => {
      const { embeddings } = await embedMany({
        model: createOpenAI({ ...server }).embedding(embeddingModel),
        values: texts
      })
      return embeddings
    }
  }
}

const langchain = (useResponsesApi: boolean): Client => {
  const chatModel = ({ apiKey, baseURL }: Server) =>
    new ChatOpenAI({ model, apiKey, useResponsesApi, configuration: { baseURL } })
  return {
    name: `LangChain, ${useResponsesApi ? "responses" : "chat completions"}`,
    chat: async (server) => (await chatModel(server).invoke(question)).text,
    stream: async (server) => {
      const chunks = await collect(await chatModel(server).stream(question))
      return chunks.map(({ text }) => text)
    },
    tools: async (server) => {
      const { inputs, run } = observed()
      const tool = langchainTool(run, { ...weather, schema: Place })
      const bound = chatModel(server).bindTools([tool])
      const asked = new HumanMessage(toolQuestion)
      const first = await bound.invoke([asked])
      const answers: Array<ToolMessage> = []
      for (const call of first.tool_calls ?? []) {
        const content = await tool.invoke(Place.parse(call.args))
        answers.push(new ToolMessage({ content, tool_call_id: call.id ?? "" }))
      }
      return { answer: (await bound.invoke([asked, first, ...answers])).text, input: inputs[0] }
    },
    structured: (server) => chatModel(server).withStructuredOutput(Weather).invoke(weatherQuestion),
    embeddings: ({ apiKey, baseURL }) =>
      new OpenAIEmbeddings({ model: embeddingModel, apiKey, configuration: { baseURL } }).embedDocuments(
        texts
      )
  }
}

const agents = (useResponses: boolean): Client => {
  // Its traces would go to OpenAI, whatever the base URL.
  const runner = (server: Server) =>
    new Runner({ modelProvider: new OpenAIProvider({ ...server, useResponses }), tracingDisabled: true })
  const teacher = new Agent({ name: "Teacher", instructions: "Answer plainly.", model })
  return {
    name: `OpenAI Agents SDK, ${useResponses ? "responses" : "chat completions"}`,
    chat: async (server) => (await runner(server).run(teacher, question)).finalOutput ?? "",
    stream: async (server) => {
      const result = await runner(server).run(teacher, question, { stream: true })
      const pieces = await collect(result.toTextStream())
      await result.completed
      return pieces
    },
    tools: async (server) => {
      const { inputs, run } = observed()
      const tools = [agentsTool({ ...weather, parameters: Place, execute: run })]
      const agent = new Agent({ name: "Meteorologist", model, tools })
      return { answer: (await runner(server).run(agent, toolQuestion)).finalOutput ?? "", input: inputs[0] }
    },
    structured: async (server) => {
      const agent = new Agent({ name: "Meteorologist", model, outputType: Weather })
      return (await runner(server).run(agent, weatherQuestion)).finalOutput
    }
  }
}

const clients: ReadonlyArray<Client> = [
  official,
  officialResponses,
  vercel("chat"),
  vercel("responses"),
  langchain(false),
  langchain(true),
  agents(false),
  agents(true)
]

/** Runs a task at the simulator and through the gateway, which must make no difference; gives its result. */
const compared = <A>(task: (server: Server) => Promise<A>) =>
  Effect.gen(function* () {
    const { origin, simulator } = yield* RunningGateway.make()
    const requests = Effect.map(simulator.journal.entries, (entries) =>
      entries.map(({ body, method, path }) => ({ body, method, path }))
    )
    const direct = yield* Effect.promise(() => task({ baseURL: simulator.url, apiKey: "sk-caller" }))
    const asked = yield* requests
    const relayed = yield* Effect.promise(() => task({ baseURL: `${origin}/v1`, apiKey: "sk-caller" }))
    assert.deepStrictEqual(relayed, direct)
    return { relayed, asked, sent: (yield* requests).slice(asked.length) }
  })

/** Hosts that were asked for anything by way of `fetch`, which is what all of these clients use. */
const hosts = new Set<string>()

beforeAll(() => {
  // LangChain would send its traces where a person's environment says so.
  for (const name of [
    "LANGSMITH_TRACING",
    "LANGSMITH_TRACING_V2",
    "LANGCHAIN_TRACING",
    "LANGCHAIN_TRACING_V2"
  ])
    vi.stubEnv(name, "false")
  const real = globalThis.fetch
  vi.stubGlobal("fetch", (input: string | URL | Request, init?: RequestInit) => {
    const { hostname, protocol } = new URL(input instanceof Request ? input.url : input)
    // The official client asks for `data:,` to learn what `fetch` can do.
    if (protocol !== "data:") hosts.add(hostname)
    return protocol === "data:" || hostname === "127.0.0.1"
      ? real(input, init)
      : Promise.reject(new Error(`a call to ${hostname}`))
  })
})

afterAll(() => {
  vi.unstubAllGlobals()
  vi.unstubAllEnvs()
  assert.deepStrictEqual([...hosts], ["127.0.0.1"], "a client called somebody else")
})

describe.each(clients)("$name", ({ chat, embeddings, stream, structured, tools }) => {
  it.live("chats", () =>
    Effect.gen(function* () {
      const { asked, relayed, sent } = yield* compared(chat)
      assert.isAbove(relayed.length, 20)
      assert.lengthOf(sent, 1)
      assert.deepStrictEqual(sent, asked)
    })
  )

  it.live("streams, piece by piece", () =>
    Effect.gen(function* () {
      const { asked, relayed, sent } = yield* compared(stream)
      assert.isAbove(relayed.filter((piece) => piece !== "").length, 5)
      assert.lengthOf(sent, 1)
      assert.deepStrictEqual(sent, asked)
    })
  )

  it.live("uses a tool and answers with what it said", () =>
    Effect.gen(function* () {
      const { relayed, sent } = yield* compared(tools)
      assert.deepStrictEqual(relayed.input, { city: "Paris" })
      assert.isAbove(relayed.answer.length, 0)
      assert.lengthOf(sent, 2)
      assert.include(JSON.stringify(sent[1]?.body), sunny)
    })
  )

  it.live("gets output of a schema", () =>
    Effect.gen(function* () {
      const { asked, relayed, sent } = yield* compared(structured)
      assert.isTrue(Weather.safeParse(relayed).success)
      assert.deepStrictEqual(sent, asked)
    })
  )

  if (embeddings === undefined) return

  it.live("gets embeddings", () =>
    Effect.gen(function* () {
      const { asked, relayed, sent } = yield* compared(embeddings)
      assert.deepStrictEqual(
        relayed.map((vector) => vector.length),
        [1536, 1536]
      )
      assert.deepStrictEqual(sent, asked)
    })
  )
})

describe("openai, what is kept and what is heard", () => {
  const notes = "Rayleigh scattering makes the sky blue. Clouds are white for another reason."

  it.live("uploads a file, reads it again and deletes it", () =>
    Effect.gen(function* () {
      const line = `${JSON.stringify({ custom_id: "1", note: notes })}\n`
      const { relayed } = yield* compared(async (server) => {
        const { files } = openai(server)
        const file = await files.create({
          file: await toFile(Buffer.from(line), "notes.jsonl"),
          purpose: "batch"
        })
        const { bytes, filename, purpose } = await files.retrieve(file.id)
        const listed = (await collect(files.list())).map(({ id }) => id === file.id)
        const content = await (await files.content(file.id)).text()
        const { deleted } = await files.delete(file.id)
        const gone = await files.retrieve(file.id).catch((error: unknown) => error)
        assert.instanceOf(gone, NotFoundError)
        return { bytes, content: content === line, deleted, filename, listed, purpose }
      })
      assert.deepStrictEqual(relayed, {
        bytes: line.length,
        content: true,
        deleted: true,
        filename: "notes.jsonl",
        listed: [true],
        purpose: "batch"
      })
    })
  )

  it.live("fills a vector store, searches it and answers from it", () =>
    Effect.gen(function* () {
      const { relayed } = yield* compared(async (server) => {
        const { responses, vectorStores } = openai(server)
        const store = await vectorStores.create({ name: "notes" })
        const file = await toFile(Buffer.from(notes), "notes.txt")
        const indexed = await vectorStores.files.uploadAndPoll(store.id, file, { pollIntervalMs: 1 })
        const found = await collect(vectorStores.search(store.id, { query: "blue sky" }))
        const reply = await responses.create({
          model,
          input: "Use file_search: why is the sky blue?",
          tools: [{ type: "file_search", vector_store_ids: [store.id] }]
        })
        const citations = reply.output.flatMap((item) =>
          item.type === "message"
            ? item.content.flatMap((content) => (content.type === "output_text" ? content.annotations : []))
            : []
        )
        const { deleted } = await vectorStores.delete(store.id)
        return {
          status: indexed.status,
          found: found.map(({ content, filename }) => [filename, content[0]?.text]),
          cited: citations.map((citation) => citation.type),
          deleted
        }
      })
      assert.deepStrictEqual(relayed, {
        status: "completed",
        found: [["notes.txt", notes]],
        cited: ["file_citation"],
        deleted: true
      })
    })
  )

  it.live("speaks, and understands what was spoken", () =>
    Effect.gen(function* () {
      const { relayed } = yield* compared(async (server) => {
        const { audio } = openai(server)
        const speech = await audio.speech.create({
          model: "gpt-4o-mini-tts",
          voice: "alloy",
          input: notes,
          response_format: "wav"
        })
        const bytes = Buffer.from(await speech.arrayBuffer())
        const file = await toFile(bytes, "notes.wav")
        const heard = await audio.transcriptions.create({ model: "gpt-4o-mini-transcribe", file })
        const events = await collect(
          await audio.transcriptions.create({ model: "gpt-4o-mini-transcribe", file, stream: true })
        )
        const translated = await audio.translations.create({ model: "whisper-1", file })
        return { bytes: bytes.length, heard: heard.text, last: events.at(-1), translated: translated.text }
      })
      assert.isAbove(relayed.bytes, 1000)
      assert.strictEqual(relayed.heard, notes)
      assert.strictEqual(relayed.last?.type, "transcript.text.done")
    })
  )
})
