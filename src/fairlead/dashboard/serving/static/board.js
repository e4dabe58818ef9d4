// Tells on an open dashboard when there is a newer one, when that could not be made, and when the login is over.
const LOOK_MS = 10_000;
const bar = document.getElementById("fairlead-bar");
const notice = bar.querySelector(".fairlead-notice");
const news = bar.querySelector(".fairlead-news");

async function look() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(bar.dataset.state, { headers: { accept: "application/json" }, redirect: "error" });
  } catch {
    return; // Away for now.
  }
  if (answer.status === 401) {
    location.reload(); // To the login, which leads back here.
    return;
  }
  if (answer.status === 404) {
    say("This dashboard is no longer here.");
  } else if (answer.ok) {
    const state = await answer.json();
    news.hidden = state.version === bar.dataset.version;
    say(state.notice ?? "");
  }
}

function say(text) {
  if (notice.textContent === text) return; // Said again, it would be read out again.
  notice.textContent = text;
  notice.hidden = !text;
}

setInterval(look, LOOK_MS);
document.addEventListener("visibilitychange", look);
