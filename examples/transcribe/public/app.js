// A bare browser WebSocket and protocol.md: nothing of ours is needed to follow a job.
const $ = (id) => document.getElementById(id)
const jobs = new Map()
let socket
let backoffMs = 500

const config = await (await fetch('/config')).json()
const gateway = `ws://${location.hostname}:${config.gatewayPort}/v1/ws`

function card(id, title) {
  if (jobs.has(id)) return jobs.get(id)
  const root = $('job').content.firstElementChild.cloneNode(true)
  const part = (name) => root.querySelector(name)
  const job = { id, root, cursor: '0-0', seq: 0, whole: true, attempt: 0, lines: [], ended: false, part }
  part('h2').textContent = title
  part('progress').setAttribute('aria-label', `Progress of ${title}`)
  part('.cancel').addEventListener('click', () => post(`/jobs/${encodeURIComponent(id)}/cancel`))
  root.dataset.job = id
  jobs.set(id, job)
  $('jobs').prepend(root)
  $('empty').hidden = true
  return job
}

function tell(job, text, kind = '') {
  const line = document.createElement('li')
  line.textContent = text
  line.className = kind
  job.part('.story').append(line)
}

function showState(job, state) {
  job.root.dataset.state = state
  job.part('.state').textContent = job.attempt > 1 ? `${state} · attempt ${job.attempt}` : state
  job.part('.cancel').hidden = ['COMPLETED', 'FAILED', 'CANCELLED'].includes(state)
}

function showProgress(job, progress) {
  if (!progress) return
  const { done, total, unit, words } = progress
  job.part('progress').max = total || 1
  job.part('progress').value = done
  job.part('.amount').textContent =
    unit === 's'
      ? `${done} of ${total} s · ${words} words`
      : `${Math.round(done / 1024)} of ${Math.round(total / 1024)} KB`
}

const STORY = {
  enqueue: () => 'queued',
  claim: (item) => `attempt ${item.attempt} started on ${item.worker}`,
  reap: (item) => item.message,
  retry: (item) => `attempt failed: ${item.error?.message ?? ''}`,
  fail: (item) => `failed: ${item.error?.message ?? ''}`,
  complete: () => 'completed',
  cancel: (item) => (item.state === 'CANCELLED' ? 'cancelled' : 'cancel requested'),
  abort: () => 'cancelled',
  release: () => 'handed back by a stopping worker',
}

function apply(job, item) {
  // Once and in order, or it shows.
  if (item.seq !== job.seq + 1) job.whole = false
  job.seq = item.seq
  if (item.attempt > job.attempt) {
    job.attempt = item.attempt
    job.lines = []
    job.part('.text').textContent = ''
  }
  if (item.type === 'progress') showProgress(job, item.progress)
  if (item.type === 'log') {
    job.lines.push(item.line)
    job.part('.text').textContent = job.lines.join(' ')
  }
  if (item.type === 'state') {
    showState(job, item.state)
    const story = STORY[item.move]
    if (story) tell(job, story(item), item.move === 'reap' ? 'lost' : '')
    if (item.result?.text) job.part('.text').textContent = item.result.text
  }
}

function receive(message) {
  const job = jobs.get(message.job)
  if (!job) return
  if (message.type === 'events') {
    for (const item of message.items) apply(job, item)
    if (message.conflated) job.seq = message.to
    job.cursor = message.cursor
  } else if (message.type === 'snapshot') {
    Object.assign(job, { cursor: message.cursor, seq: message.seq, attempt: message.attempt })
    showState(job, message.state)
    showProgress(job, message.progress)
    if (message.result?.text) job.part('.text').textContent = message.result.text
  } else if (message.type === 'reset') {
    tell(job, `position lost (${message.reason}): a snapshot follows`, 'lost')
  } else if (message.type === 'complete') {
    job.ended = true
  } else if (message.type === 'error' && message.retryable) {
    setTimeout(() => subscribe(job), message.retryAfterMs ?? 1000)
  } else if (message.type === 'error' || message.type === 'unsubscribed') {
    job.ended = true
    tell(job, 'this job is gone', 'lost')
  }
  const seq = job.part('.seq')
  seq.textContent = job.whole
    ? `events 1–${job.seq}, none missing`
    : `events up to ${job.seq}: a gap was seen`
  seq.classList.toggle('broken', !job.whole)
}

function subscribe(job) {
  if (socket?.readyState === WebSocket.OPEN && !job.ended)
    socket.send(JSON.stringify({ type: 'subscribe', job: job.id, cursor: job.cursor }))
}

function connect() {
  socket = new WebSocket(gateway, ['jobs.v1.json'])
  socket.onopen = () => {
    backoffMs = 500
    $('connection').textContent = 'Live'
    for (const job of jobs.values()) subscribe(job)
  }
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data)
    for (const message of Array.isArray(frame) ? frame : [frame]) receive(message)
  }
  socket.onclose = () => {
    $('connection').textContent = 'Connection lost; reconnecting …'
    // Full jitter, so that a thousand pages do not come back at once.
    setTimeout(connect, Math.random() * backoffMs)
    backoffMs = Math.min(backoffMs * 2, 20000)
  }
}

async function post(path, body) {
  $('problem').hidden = true
  try {
    const response = await fetch(path, { method: 'POST', body })
    const answer = await response.json()
    if (!response.ok) throw new Error(answer.error?.message ?? `The backend answered ${response.status}.`)
    for (const { id, title } of answer.jobs ?? []) subscribe(card(id, title))
  } catch (error) {
    $('problem').textContent = error.message
    $('problem').hidden = false
  }
}

$('samples').onclick = () => post('/samples')
$('kill').onclick = () => post('/worker/kill')
$('file').onchange = ({ target }) => {
  const [file] = target.files
  if (!file) return
  const form = new FormData()
  form.append('file', file)
  post('/jobs', form)
  target.value = ''
}

for (const { id, title } of (await (await fetch('/jobs')).json()).jobs) card(id, title)
connect()
