// One page, one upload at a time. What the page shows follows from its state:
//
//   idle -> uploading <-> paused, waiting (for a retry) -> finished or failed
//   idle -> offer (this file has an unfinished upload) -> uploading
//
// The address may carry ?endpoint=URL (where uploads are created) and ?chunkSize=BYTES (for proxies that limit bodies).

'use strict'

const BUTTONS = {
  idle: [],
  offer: ['continue', 'fresh', 'another'],
  uploading: ['pause', 'cancel'],
  waiting: ['retry', 'cancel'],
  paused: ['resume', 'cancel'],
  finished: ['link', 'another'],
  failed: ['retry', 'another'],
}

// Milliseconds. A server restart takes seconds, a tunnel minutes; the counting starts anew whenever bytes get through.
const RETRY_DELAYS = [0, 500, 1000, 2000, 4000, 8000, ...Array(60).fill(15000)]
const STALLED_MS = 30000 // a connection that died silently is noticed by nobody else
const PACE_MS = 5000 // speed is the mean of this long
const TEMPORARY = [408, 409, 423, 425, 429] // the only 4xx that may be answered otherwise next time
const GONE = [404, 410] // expired or removed: begin anew

const element = (id) => document.getElementById(id)
const parameters = new URLSearchParams(location.search)
const storage = tus.defaultOptions.urlStorage

let state = 'idle'
let file = null
let upload = null
let previous = [] // unfinished uploads of the chosen file, the newest first
let samples = [] // [milliseconds, bytes sent], the oldest first
let movedAt = 0 // milliseconds, when the last byte was sent

// --- What is shown ---

function show(next, message) {
  const focused = document.activeElement // before it is hidden, for the browser forgets it then
  state = next
  document.body.dataset.state = next
  for (const button of document.querySelectorAll('.buttons > *')) button.hidden = !BUTTONS[next].includes(button.id)
  element('choose').hidden = next !== 'idle'
  element('upload').hidden = next === 'idle'
  element('endpoint').disabled = next !== 'idle'
  element('retry').textContent = next === 'failed' ? 'Try again' : 'Try now'
  element('status').textContent = message
  if (next !== 'uploading') element('pace').textContent = ''
  if (next === 'idle') listUnfinished()
  if (focused !== document.body && !focused.checkVisibility()) {
    document.querySelector('.buttons > :not([hidden]), #choose:not([hidden]) input')?.focus()
  }
}

function showProgress(sent, total) {
  const now = performance.now()
  if (samples.length && sent < samples.at(-1)[1]) samples = []
  if (!samples.length || sent > samples.at(-1)[1]) movedAt = now
  samples.push([now, sent])
  samples = samples.filter(([at]) => now - at <= PACE_MS)
  const [[since, before]] = samples
  const speed = (sent - before) / Math.max((now - since) / 1000, 0.001) // bytes a second

  const done = total ? sent / total : 1
  element('progress').value = done
  element('sent').textContent = `${Math.floor(done * 100)} % · ${bytes(sent)} of ${bytes(total)}`
  if (state === 'uploading' && now - since >= 500 && speed > 0) {
    element('pace').textContent = `${bytes(speed)}/s · ${duration((total - sent) / speed)} left`
  }
}

function resetProgress() {
  samples = []
  movedAt = performance.now()
  element('progress').value = 0
  element('sent').textContent = bytes(file.size)
}

function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), units.length - 1)
  return `${(count / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`
}

function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`
  const minutes = Math.ceil(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

function startedAt(entry) {
  return new Date(entry.creationTime).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' })
}

// --- Choosing a file, and what is left of earlier uploads ---

async function choose(chosen) {
  if (!element('endpoint').reportValidity()) return
  file = chosen
  element('name').textContent = file.name
  resetProgress()
  upload = newUpload()
  previous = await upload.findPreviousUploads()
  previous.sort((a, b) => new Date(b.creationTime) - new Date(a.creationTime))
  if (!previous.length) return start()
  show('offer', `This file has an unfinished upload, started ${startedAt(previous[0])}.`)
}

// Tells of unfinished uploads before a file is chosen: a page that was reloaded has lost its files, by the browser's rules.
async function listUnfinished() {
  const ofThisServer = (entry) => entry.urlStorageKey.includes(`-${element('endpoint').value}::`)
  const entries = (await storage.findAllUploads()).filter(ofThisServer)
  element('unfinished').replaceChildren(...entries.map(unfinishedItem))
}

function unfinishedItem(entry) {
  const item = document.createElement('li')
  const text = document.createElement('span')
  const name = document.createElement('strong')
  name.textContent = entry.metadata.filename
  text.append('Unfinished: ', name, ` (${bytes(entry.size)}, ${startedAt(entry)}). Choose the same file to continue.`)
  const discard = document.createElement('button')
  discard.textContent = 'Discard'
  discard.setAttribute('aria-label', `Discard the unfinished upload of ${entry.metadata.filename}`)
  discard.onclick = async () => {
    const removed = await remove(entry)
    show('idle', removed ? 'Discarded.' : 'The server could not be asked to discard it. Try again later.')
  }
  item.append(text, discard)
  return item
}

// Removes an unfinished upload here and on the server; returns false when the server did not answer.
async function remove(entry) {
  try {
    await tus.Upload.terminate(entry.uploadUrl, { retryDelays: null })
  } catch (error) {
    if (!GONE.includes(statusOf(error))) return false
  }
  await storage.removeUpload(entry.urlStorageKey)
  return true
}

// --- Uploading ---

function newUpload() {
  const chunkSize = Number(parameters.get('chunkSize'))
  return new tus.Upload(file, {
    endpoint: element('endpoint').value,
    chunkSize: chunkSize > 0 ? chunkSize : Infinity, // one request for the whole file, unless a proxy forbids it
    retryDelays: RETRY_DELAYS,
    removeFingerprintOnSuccess: true,
    metadata: { filename: file.name, filetype: file.type || 'application/octet-stream' },
    onProgress: showProgress,
    onAfterResponse: heard,
    onShouldRetry: shouldRetry,
    onError: (error) => show('failed', reason(error)),
    onSuccess: finished,
  })
}

function start(message = 'Uploading.') {
  samples = []
  movedAt = performance.now()
  show('uploading', message)
  upload.start()
}

function pause() {
  upload.abort()
  show('paused', 'Paused. You can also close the page and continue later with the same file.')
}

// Drops the request that runs or waits, and asks the server where to go on.
function again() {
  upload.abort()
  start('Trying again.')
}

async function cancel() {
  show('idle', 'Cancelled.')
  try {
    await upload.abort(true)
  } catch (error) {
    if (!GONE.includes(statusOf(error))) show('idle', 'Cancelled here; the server could not be told.')
  }
  listUnfinished()
}

function finished() {
  showProgress(file.size, file.size)
  element('link').href = upload.url
  show('finished', `${file.name} is uploaded.`)
}

function heard(request, response) {
  const status = response.getStatus()
  if (request.getMethod() === 'HEAD' && GONE.includes(status)) {
    resetProgress()
    show('uploading', 'The unfinished upload has expired on the server. The upload starts anew.')
  } else if (request.getMethod() === 'HEAD' && status >= 300 && status !== 423) {
    // tus-js-client would start a new upload now, for example when a proxy says 502 while its server restarts.
    throw Object.assign(new Error('the offset is not known'), { status })
  } else if (status < 300 && state === 'waiting') {
    show('uploading', 'The connection is back.')
  }
}

function shouldRetry(error, attempt) {
  const status = statusOf(error)
  const method = error.originalRequest.getMethod()
  // An upload that goes away under a PATCH is missed by the next HEAD, which starts a new one.
  const worthwhile = method !== 'DELETE' && (isTemporary(status) || (method === 'PATCH' && GONE.includes(status)))
  if (worthwhile) {
    const pause = RETRY_DELAYS[attempt] < 1000 ? 'now' : `in ${RETRY_DELAYS[attempt] / 1000} seconds`
    show('waiting', `${trouble(status)} Trying again ${pause}.`)
    if (!status) checkFile()
  }
  return worthwhile
}

// The browser reports a file that was changed or removed while it is read like a broken connection.
async function checkFile() {
  try {
    await file.slice(0, 1).arrayBuffer()
  } catch {
    upload.abort()
    show('failed', 'The file has changed or is gone on this device. Choose it again to upload it as it is now.')
  }
}

function isTemporary(status) {
  return status < 400 || status >= 500 || TEMPORARY.includes(status)
}

// The status of the answer that an error is about; 0 when there was no answer.
function statusOf(error) {
  return error.originalResponse?.getStatus() ?? error.causingError?.status ?? 0
}

function trouble(status) {
  if (!status) return navigator.onLine ? 'The connection to the server is lost.' : 'This device is offline.'
  if (status === 409) return 'The server is at another place in the file.'
  if (status === 423) return 'The upload is in use, perhaps in another tab.'
  return `The server cannot take the upload just now (${status}).`
}

function reason(error) {
  const status = statusOf(error)
  if (!error.originalRequest) return `The upload cannot go on: ${error.message}.`
  if (isTemporary(status)) return `${trouble(status)} It was tried many times.`
  const detail = detailOf(error.originalResponse)
  return `The server refused the upload (${status})${detail ? `: ${detail}` : ''}.`
}

// What the server says in its problem details (RFC 9457); nothing when the answer is somebody else's.
function detailOf(response) {
  try {
    return JSON.parse(response.getBody()).detail
  } catch {
    return ''
  }
}

// --- Wiring ---

element('endpoint').value = parameters.get('endpoint') || `http://${location.hostname || 'localhost'}:1080/files/`
document.querySelector('footer').hidden = parameters.has('endpoint')
element('endpoint').onchange = listUnfinished

element('file').onchange = (event) => {
  const [chosen] = event.target.files
  event.target.value = '' // or choosing the same file again would not be an event
  if (chosen) choose(chosen)
}

element('continue').onclick = () => {
  upload.resumeFromPreviousUpload(previous[0])
  start('Continuing where it stopped.')
}
element('fresh').onclick = () => {
  previous.forEach(remove)
  start()
}
element('pause').onclick = pause
element('resume').onclick = () => start('Continuing where it stopped.')
element('retry').onclick = again
element('cancel').onclick = cancel
element('another').onclick = () => show('idle', '')

window.addEventListener('dragover', (event) => {
  event.preventDefault() // or the browser would open the file
  document.body.classList.add('dragging')
})
window.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dragging')
})
window.addEventListener('drop', (event) => {
  event.preventDefault()
  document.body.classList.remove('dragging')
  const [item] = event.dataTransfer.items
  if (state !== 'idle' || item?.kind !== 'file') return
  if (item.webkitGetAsEntry()?.isDirectory) show('idle', 'That is a folder. Choose one file.')
  else choose(item.getAsFile())
})

window.addEventListener('online', () => {
  if (state === 'waiting') again()
})
setInterval(() => {
  if (state === 'uploading' && performance.now() - movedAt > STALLED_MS) again()
}, 1000)

show('idle', '')
