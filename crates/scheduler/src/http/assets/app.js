// Draws the parts of a live page from the messages of `status/ws`. Nothing is loaded from elsewhere, and all
// text of peers goes in by textContent.
'use strict';
(() => {
  const parts = document.body.dataset.parts.split(' ');
  const TOPICS = { summary: 'scheduler,prefixes,workers', workers: 'workers', progress: 'prefixes', stream: 'ran', system: 'scheduler' };
  const STATES = [
    ['memory', '#59a14f'], ['erred', '#d62728'], ['processing', '#4e79a7'], ['queued', '#b6992d'],
    ['waiting', '#bab0ac'], ['no-worker', '#9c755f'], ['released', '#dddddd'],
  ];
  const MEMORY = [['managed', '#4e79a7'], ['unmanaged_old', '#76b7b2'], ['unmanaged_recent', '#bcdfe0'], ['spilled', '#f28e2b']];
  const KINDS = ['#4e79a7', '#59a14f', '#9c755f', '#edc948', '#76b7b2', '#af7aa1', '#8cd17d', '#b6992d', '#499894', '#d4a6c8'];
  const ACTIONS = { transfer: '#e15759', 'disk-read': '#f28e2b', 'disk-write': '#f28e2b', deserialize: '#888888' };
  const WINDOW = 30, MAX_BARS = 20000, MAX_ROWS = 500;

  const $ = (id) => document.getElementById(id);
  const make = (tag, text, className) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const bytes = (n) => {
    for (const [unit, size] of [['TiB', 2 ** 40], ['GiB', 2 ** 30], ['MiB', 2 ** 20], ['kiB', 2 ** 10]]) {
      if (n >= size * 0.9) return (n / size).toFixed(1) + ' ' + unit;
    }
    return Math.round(n) + ' B';
  };
  const seconds = (t) => {
    if (t === null || t === undefined) return '';
    if (t >= 7200) return (t / 3600).toFixed(1) + ' h';
    if (t >= 120) return (t / 60).toFixed(1) + ' min';
    if (t >= 1) return t.toFixed(1) + ' s';
    return (t * 1000).toFixed(1) + ' ms';
  };
  const share = (part, whole) => Math.min(100, whole > 0 ? (100 * part) / whole : 0);
  const track = (pieces) => {
    const bar = make('div', undefined, 'track');
    for (const [percent, color, title] of pieces) {
      if (percent <= 0) continue;
      const piece = make('i');
      piece.style.width = percent + '%';
      piece.style.background = color;
      piece.title = title;
      bar.append(piece);
    }
    return bar;
  };
  const barCell = (pieces) => {
    const cell = make('td', undefined, 'bar');
    cell.append(track(pieces));
    return cell;
  };
  const fill = (body, rows) => body.replaceChildren(...rows);
  const row = (cells) => {
    const line = make('tr');
    for (const cell of cells) line.append(cell instanceof Node ? cell : make('td', cell));
    return line;
  };
  const facts = (node, pairs) => {
    node.replaceChildren(...pairs.map(([name, value]) => {
      const pair = make('div');
      pair.append(make('dt', name), make('dd', value));
      return pair;
    }));
  };

  const draw = {
    summary(data) {
      const states = (data.tasks && data.tasks.states) || {};
      const workers = data.workers || [];
      const total = (f) => workers.reduce((sum, worker) => sum + f(worker), 0);
      const limit = total((w) => w.memory.limit);
      facts($('summary-facts'), [
        ['Workers', workers.length],
        ['Threads', total((w) => w.nthreads)],
        ['Memory', bytes(total((w) => w.memory.process)) + (limit ? ' / ' + bytes(limit) : '')],
        ['Clients', data.scheduler.clients],
        ['Tasks', Object.values(states).reduce((a, b) => a + b, 0)],
        ...STATES.filter(([name]) => states[name]).map(([name]) => [name, states[name]]),
        ['Scheduler', bytes(data.scheduler.memory)],
        ['Up', seconds(data.time - data.scheduler.started)],
      ]);
    },
    workers(data) {
      const workers = data.workers || [];
      fill($('workers-rows'), workers.slice(0, MAX_ROWS).map((worker) => {
        const name = make('a', worker.name);
        name.href = 'info/worker/' + encodeURIComponent(worker.address) + '.html';
        name.title = worker.address;
        const cell = make('td');
        cell.append(name);
        const memory = worker.memory;
        const most = memory.limit || memory.process + memory.spilled;
        const cpu = Math.round(worker.cpu) + ' %';
        return row([
          cell, worker.status, worker.nthreads,
          barCell([[share(worker.cpu, 100 * worker.nthreads), '#4e79a7', cpu]]), cpu,
          barCell(MEMORY.map(([kind, color]) => [share(memory[kind], most), color, kind.replace('_', ' ') + ': ' + bytes(memory[kind])])),
          bytes(memory.process) + (memory.limit ? ' / ' + bytes(memory.limit) : ''),
          worker.processing, worker.in_memory, seconds(worker.occupancy), seconds(worker.last_seen),
        ]);
      }));
      $('workers-more').textContent = workers.length > MAX_ROWS ? `and ${workers.length - MAX_ROWS} more` : '';
    },
    progress(data) {
      const tasks = data.tasks || { prefixes: [], more_prefixes: 0 };
      fill($('progress-rows'), tasks.prefixes.map((prefix) => {
        const all = Object.values(prefix.states).reduce((a, b) => a + b, 0);
        const done = (prefix.states.memory || 0) + (prefix.states.released || 0) + (prefix.states.erred || 0);
        return row([
          prefix.name,
          barCell(STATES.map(([state, color]) => [share(prefix.states[state] || 0, all), color, state + ': ' + (prefix.states[state] || 0)])),
          done + ' / ' + all, seconds(prefix.duration_average), bytes(Math.max(0, prefix.nbytes)),
        ]);
      }));
      $('progress-more').textContent = tasks.more_prefixes ? `and ${tasks.more_prefixes} more` : '';
    },
    stream(data) {
      for (const task of data.ran || []) {
        const lane = task.worker + ' ' + task.thread;
        if (!lanes.has(lane)) lanes.set(lane, lanes.size);
        for (const [action, start, stop] of task.actions) bars.push([lane, start, stop, action, task]);
      }
      if (bars.length > MAX_BARS) bars.splice(0, bars.length - MAX_BARS);
      lost += data.lost || 0;
      now = data.time;
      $('stream-count').textContent = bars.length + ' tasks and transfers' + (lost ? `, ${lost} not shown` : '');
      paint();
    },
    system(data) {
      const s = data.scheduler;
      const cpu = before ? (100 * (s.cpu_seconds - before.cpu)) / Math.max(0.001, data.time - before.time) : 0;
      before = { cpu: s.cpu_seconds, time: data.time };
      facts($('system-facts'), [
        ['CPU', cpu.toFixed(0) + ' %'], ['Memory', bytes(s.memory)], ['Open files', s.open_fds],
        ['Waiting for the core', s.pending_events], ['Work waiting', seconds(s.occupancy)], ['Clients', s.clients],
        ['Up', seconds(data.time - s.started)], ['Id', s.id],
      ]);
    },
  };

  const lanes = new Map();
  const bars = [];
  let now = 0, lost = 0, before = null;

  function colorOf(action, prefix) {
    if (ACTIONS[action]) return ACTIONS[action];
    let sum = 0;
    for (const byte of new TextEncoder().encode(prefix)) sum = (Math.imul(sum, 31) + byte) >>> 0;
    return KINDS[sum % KINDS.length];
  }

  function paint() {
    const canvas = $('stream-canvas');
    const scale = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    const context = canvas.getContext('2d');
    const height = canvas.height / Math.max(1, lanes.size);
    // The newest task ends at the right edge.
    const end = bars.reduce((latest, bar) => Math.max(latest, bar[2]), now - WINDOW);
    for (const [lane, start, stop, action, task] of bars) {
      if (stop < end - WINDOW) continue;
      const left = canvas.width * (1 - (end - start) / WINDOW);
      const width = Math.max(1, (canvas.width * (stop - start)) / WINDOW);
      context.fillStyle = task.finish === 'erred' && action === 'compute' ? '#000' : colorOf(action, task.prefix);
      context.fillRect(left, lanes.get(lane) * height, width, Math.max(1, height - 1));
    }
  }

  for (const [id, list] of [['progress-legend', STATES], ['workers-legend', MEMORY]]) {
    const legend = $(id);
    if (!legend) continue;
    for (const [name, color] of list) {
      const mark = make('i');
      mark.style.background = color;
      legend.append(mark, name.replace('_', ' '));
    }
  }

  function connect() {
    const topics = [...new Set(parts.flatMap((part) => TOPICS[part].split(',')))];
    const url = new URL('status/ws?topics=' + topics.join(','), document.baseURI);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url);
    const state = $('state');
    socket.onopen = () => { state.textContent = 'live'; state.className = ''; };
    socket.onmessage = (event) => {
      const data = JSON.parse(event.data);
      for (const part of parts) draw[part](data);
      document.body.dataset.messages = Number(document.body.dataset.messages || 0) + 1;
    };
    socket.onclose = () => {
      state.textContent = 'connection lost, trying again';
      state.className = 'off';
      setTimeout(connect, 2000);
    };
  }
  connect();
})();
