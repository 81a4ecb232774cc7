// Uploads one file with tus-js-client and prints one JSON line for each event.
//
//   node upload.mjs [options] ENDPOINT FILE
//     --store PATH             remember the upload's URL here: a second start resumes
//     --chunk-size BYTES       one PATCH for so many bytes; default: one for all
//     --rate BYTES             let no request carry more than this in a second
//     --data-during-creation   the first bytes go with the POST
//     --parallel N             in so many parts at the same time, which the server concatenates
//     --stream                 from a stream that does not tell its length; wants --chunk-size
//     --override-patch         POST with X-HTTP-Method-Override instead of PATCH
//     --request-id             an X-Request-ID of its own for every request
//     --header NAME:VALUE      send this too; may repeat
//     --abort-at BYTES         give up after so many bytes, and remove the upload from the server
//     --terminate              remove the upload from the server when it is finished
//
// Events: request {method, override, url, offset, length, id}, response {method, status, location}, url {url},
// progress {sent, length}, retry {status}, success {url}, terminated {}, error {status, message}.
// A status of 0 says that no answer came. Exit status: 0 uploaded or terminated, 1 given up.

import { createReadStream } from 'node:fs'
import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import tus from 'tus-js-client'

const PIECE = 65536 // bytes
const RETRY_DELAYS = [0, 250, 500, ...Array(30).fill(1000)] // milliseconds; a server restart takes seconds

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    store: { type: 'string' },
    'chunk-size': { type: 'string' },
    rate: { type: 'string' },
    'data-during-creation': { type: 'boolean', default: false },
    parallel: { type: 'string', default: '1' },
    stream: { type: 'boolean', default: false },
    'override-patch': { type: 'boolean', default: false },
    'request-id': { type: 'boolean', default: false },
    header: { type: 'string', multiple: true, default: [] },
    'abort-at': { type: 'string' },
    terminate: { type: 'boolean', default: false },
  },
})
const [endpoint, path] = positionals

function tell(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
}

// tus-js-client's fileReader option: its own sources, in slices that flow no faster than the rate. A slice may come back
// as a file: as a part of a parallel upload.
const slowReader = {
  async openFile(input, chunkSize) {
    const source = await tus.defaultOptions.fileReader.openFile(input.unhindered ?? input, chunkSize)
    return {
      size: source.size,
      async slice(start, end) {
        const { value, done } = await source.slice(start, end)
        const slow = Readable.from(slowly(value), { objectMode: false })
        return { value: Object.assign(slow, { size: value.size, unhindered: value }), done }
      },
      close: () => source.close(),
    }
  },
}

async function* slowly(slice) {
  const startedAt = performance.now()
  let sent = 0
  for await (const piece of Buffer.isBuffer(slice) ? piecesOf(slice) : slice) {
    yield piece
    sent += piece.length
    const ahead = (sent / Number(values.rate)) * 1000 - (performance.now() - startedAt) // milliseconds
    if (ahead > 0) await sleep(ahead)
  }
}

function* piecesOf(buffer) {
  for (let start = 0; start < buffer.length; start += PIECE) yield buffer.subarray(start, start + PIECE)
}

let aborted = false

function giveUp(sent) {
  if (aborted || sent < Number(values['abort-at'])) return
  aborted = true
  upload.abort(true).then(() => tell('terminated', {}), fail)
}

function fail(error) {
  tell('error', { status: statusOf(error), message: error.message })
  process.exitCode = 1
}

const options = {
  endpoint,
  metadata: { filename: basename(path) },
  retryDelays: RETRY_DELAYS,
  removeFingerprintOnSuccess: true,
  uploadDataDuringCreation: values['data-during-creation'],
  chunkSize: values['chunk-size'] ? Number(values['chunk-size']) : Number.POSITIVE_INFINITY,
  parallelUploads: Number(values.parallel),
  uploadLengthDeferred: values.stream,
  overridePatchMethod: values['override-patch'],
  addRequestId: values['request-id'],
  headers: Object.fromEntries(values.header.map((line) => line.split(':', 2))),
  onProgress: (sent, length) => {
    tell('progress', { sent, length })
    if (values['abort-at']) giveUp(sent)
  },
  onUploadUrlAvailable: () => tell('url', { url: upload.url }),
  onBeforeRequest: (request) =>
    tell('request', {
      method: request.getMethod(),
      override: request.getHeader('X-HTTP-Method-Override'),
      url: request.getURL(),
      offset: Number(request.getHeader('Upload-Offset') ?? 0),
      length: request.getHeader('Upload-Length'),
      id: request.getHeader('X-Request-ID'),
    }),
  onAfterResponse: (request, response) =>
    tell('response', {
      method: request.getMethod(),
      status: response.getStatus(),
      location: response.getHeader('Location'),
    }),
  onShouldRetry: (error) => {
    const status = statusOf(error)
    const worthwhile = status < 400 || status >= 500 || status === 409 || status === 423
    if (worthwhile) tell('retry', { status })
    return worthwhile
  },
  onSuccess: async () => {
    tell('success', { url: upload.url })
    if (values.terminate) await tus.Upload.terminate(upload.url, upload.options).then(() => tell('terminated', {}), fail)
  },
  onError: fail,
}
if (values.store) options.urlStorage = new tus.FileUrlStorage(values.store)
if (values.rate) options.fileReader = slowReader

function statusOf(error) {
  return error.originalResponse?.getStatus() ?? 0
}

const file = createReadStream(path)
const upload = new tus.Upload(values.stream ? Readable.from(file, { objectMode: false }) : file, options)
const [previous] = await upload.findPreviousUploads()
if (previous) upload.resumeFromPreviousUpload(previous)
upload.start()
