"""What the retrieval benchmark asks besides the relevance judgements: questions of our own, in values only.

In:  nothing.
Out: off-topic questions, for pools about tools and APIs; notes and questions in Chinese, Japanese, Korean, and Chinese
     with the names of tools.
"""

from __future__ import annotations

from dataclasses import dataclass

# Some are near the domain of function-calling benchmarks (a booking, a bank account), where it is hardest.
SHORT_OFF_TOPIC = tuple(
    line.strip()
    for line in """
    How long should I boil eggs for a soft yolk?
    What is a good recipe for vegetarian lasagna?
    My sourdough starter smells like acetone, what went wrong?
    Substitute for buttermilk in pancakes
    How do I season a cast iron skillet?
    Write a haiku about autumn rain
    Compose a sonnet on unrequited love in the style of Shakespeare
    Who wrote The Love Song of J. Alfred Prufrock and what does it mean?
    Give me a rhyme for silver
    Explain the symbolism of the whale in Moby Dick
    What are the symptoms of iron deficiency anemia?
    Is ibuprofen safe to take together with lisinopril?
    My toddler has a fever of 39 degrees and a rash, what should I do?
    Explain how mRNA vaccines work
    What is the difference between type 1 and type 2 diabetes?
    Can my landlord evict me without notice in California?
    What is the statute of limitations for breach of contract?
    Draft a non-disclosure agreement between two companies
    Explain the difference between a trademark and a patent
    Do I need a will if I am married?
    Fix the segmentation fault in my C linked list implementation
    How do I center a div with CSS flexbox?
    Explain Python decorators with an example
    Refactor this React component to use hooks
    Write a SQL query that joins customers with invoices and groups by month
    My Docker container cannot reach the host network
    Implement quicksort in Rust
    The pytest fixture is not found, why?
    Train a random forest classifier with scikit-learn and plot the ROC curve
    Set up a Kubernetes ingress with TLS certificates
    Hello there, how are you today?
    Tell me a joke
    Thank you so much, that was really helpful!
    What is your favourite colour?
    I am bored, let's chat
    Good morning! Did you sleep well?
    What is the capital of Mongolia?
    When did the Roman Empire fall?
    Why is the sky blue?
    Who won the football world cup in 1998?
    Solve the equation 3x squared plus 2x minus 5 equals 0
    Prove that the square root of two is irrational
    Translate the sentence 'the cat sleeps on the sofa' to German
    How do I prune roses in winter?
    What dog breed is best for a small apartment?
    Plan a workout routine for building muscle at home
    How do I tune an acoustic guitar by ear?
    Explain the rules of chess castling
    Book a table for two at an Italian restaurant tonight
    Order a pizza with extra mushrooms for delivery
    Cancel my gym membership
    Schedule a dentist appointment for next Tuesday
    Turn on the living room lights and set the thermostat to 21 degrees
    Play some jazz music on the speaker
    Remind me to water the plants on Friday
    Check my bank account balance and pay the electricity bill
    Apply for a mortgage and compare interest rates
    Find a doctor who accepts my insurance
    Find me an apartment for rent with two bedrooms
    Reset my Netflix password
    Refund my broken washing machine
    Deploy the web application to AWS
    Rebase my git branch onto main and resolve the conflicts
    Migrate the Postgres database to version 16
    Summarize this research paper on black holes
    Write a cover letter for a marketing position
    Review my resume for spelling mistakes
    Explain the theory of general relativity
    Knit a scarf with a cable pattern
    Identify this mushroom I found in the forest
    """.strip().splitlines()
)

LONG_OFF_TOPIC = tuple(
    " ".join(paragraph.split())
    for paragraph in """
    I have been trying to bake sourdough bread for the last three weeks and every time I take the loaf out of
    the oven the crumb is dense and gummy. I feed the starter every morning with equal weights of flour and
    water and let it double before using it. Could you tell me whether the problem is the proofing time, the
    temperature of my kitchen, or the hydration of the dough, and what I should change first?

    Please help me plan a birthday dinner for eight guests, two of them vegetarian and one with a nut allergy. I
    would like a starter, a main course, and a dessert that can mostly be prepared the day before, and a
    shopping list sorted by supermarket section with approximate quantities and a rough estimate of the total
    price.

    Write a short story of about five hundred words in which an old lighthouse keeper discovers that the light
    he has been tending for forty years was never connected to the power grid. The tone should be melancholic
    but end with a note of hope, and it should contain at least one letter written by his late wife.

    My grandmother is 82 years old, takes warfarin and metoprolol, and was told yesterday that she has atrial
    fibrillation with a low ejection fraction. She would like to know which foods to avoid, whether she can
    still drink a glass of wine in the evening, and which symptoms would mean that she must go to the emergency
    room immediately.

    I rent a flat in Berlin and my landlord wants to raise the rent by eighteen percent because he replaced the
    windows last summer. The lease was signed in 2017 and there is no index clause. Is this increase lawful, how
    long do I have to object, and can you draft a polite letter in which I ask for the calculation?

    Our Django application throws an IntegrityError when two workers create the same user profile at the same
    time. We use PostgreSQL 15 with the default isolation level. Show me how to make the get_or_create call
    safe, add a migration for the unique constraint, and write a unit test that reproduces the race condition
    with two threads.

    Implement a generic binary search tree in TypeScript with insert, delete, find and an in-order iterator.
    Then add property-based tests using fast-check, set up ESLint and Prettier, and configure a GitHub Actions
    workflow which runs the tests on Node 18 and Node 20 and uploads the coverage report as an artifact.

    I want to fine-tune a small language model on customer support conversations. Explain how to prepare the
    data, which learning rate and batch size to choose for LoRA on a single GPU with 24 GB of memory, how to
    evaluate whether the model overfits, and how to export the adapter so that it can be served with vLLM.

    Our Kubernetes cluster started evicting pods last night because the nodes reported disk pressure.
    Investigate which images and logs use the most space on each node, propose garbage collection settings for
    the kubelet, and write an alert rule for Prometheus that fires when less than fifteen percent of the disk is
    free for ten minutes.

    Please review the following essay on the causes of the French Revolution, point out factual mistakes,
    suggest stronger topic sentences for each paragraph, and rewrite the conclusion so that it ties the economic
    crisis of the 1780s to the ideas of the Enlightenment without repeating the introduction.

    Create a twelve week training plan for my first half marathon. At the moment I run about fifteen kilometres
    a week in three sessions, my knees hurt after long downhill runs, and I can train on Tuesday, Thursday,
    Saturday and Sunday. Include strength exercises and tell me when to take a rest week.

    We are moving house in March and need a checklist: cancelling utilities, forwarding mail, hiring movers,
    packing fragile items, cleaning the old apartment, and registering at the new town hall. Put everything on a
    timeline starting eight weeks before the moving date and mark the tasks that two people are needed for.

    Design a logo concept for a small coffee roastery called Black Heron. Describe three different directions
    with colours, typography and mood, explain which one works best on a paper bag and which on a dark shop
    sign, and give me a prompt for an image generator for each of them.

    I am learning Japanese and keep confusing the particles wa and ga. Explain the difference with at least ten
    example sentences, give me a small quiz with twelve questions, and after that correct my answers one by one
    and explain the mistakes in simple English.

    Prove that every bounded sequence of real numbers has a convergent subsequence. Start from the completeness
    axiom, do the nested interval argument in detail, and then explain why the statement fails in an infinite
    dimensional Hilbert space by giving an explicit counterexample with an orthonormal basis.
    """.strip().split("\n\n")
)


@dataclass(frozen=True, slots=True)
class Note:
    """A lesson, and questions that it answers.

    Attributes:
        language: The group that it is counted in.
        when_to_use: The usage scenario.
        content: The lesson.
        questions: Each is answered by this note and by no other of its group.
    """

    language: str
    when_to_use: str
    content: str
    questions: tuple[str, ...]


# Within a group the notes share words (server, file, error), so that a word in common is not enough.
NOTES = (
    Note(
        "Chinese",
        "当需要把静态网站部署到服务器时",
        "先在本地构建，再上传公共文件夹，最后刷新缓存，否则用户会看到旧页面。",
        ("怎么把我的博客网站部署上线？", "网站上传以后用户看到的还是旧页面"),
    ),
    Note(
        "Chinese",
        "当数据库迁移因为锁表而超时时",
        "先添加可以为空的新列，分批回填数据，再切换读取，避免长时间锁住整张表。",
        ("给数据库的大表增加一列，不能锁表", "迁移数据的时候总是超时怎么办"),
    ),
    Note(
        "Chinese",
        "当接口返回权限不足的错误时",
        "检查访问令牌是否过期，重新登录获取新的令牌之后再重试请求。",
        ("请求接口提示没有权限", "访问令牌过期后需要做什么"),
    ),
    Note(
        "Chinese",
        "当用户要求取消航班预订并退款时",
        "先查询预订编号，确认退款规则，再取消航班，并把退款金额告诉用户。",
        ("帮我取消明天的航班", "这张机票能退款吗？预订编号我忘了"),
    ),
    Note(
        "Japanese",
        "静的サイトをサーバーに公開するとき",
        "先にビルドを実行し、公開フォルダをアップロードしてからキャッシュを削除する。",
        ("ブログをサーバーに公開したい", "アップロードした後も古いキャッシュが残る"),
    ),
    Note(
        "Japanese",
        "データベースの移行がタイムアウトするとき",
        "新しい列を追加し、少しずつデータを埋めてから読み込みを切り替える。",
        ("データベースの移行が途中で止まる", "大きなテーブルに新しい列を追加する方法"),
    ),
    Note(
        "Japanese",
        "車のエンジンを始動する前",
        "すべてのドアをロックし、パーキングブレーキをかけてからエンジンを始動する。",
        ("エンジンを始動してください", "ドアのロックを確認してから出発したい"),
    ),
    Note(
        "Japanese",
        "航空券の予約をキャンセルするとき",
        "予約番号を確認し、払い戻しの条件をユーザーに伝えてからキャンセルする。",
        ("明日の便の予約を取り消して", "航空券の払い戻しはできますか"),
    ),
    Note(
        "Korean",
        "정적 사이트를 서버에 배포할 때",
        "먼저 빌드를 실행하고 공개 폴더를 업로드한 다음 캐시를 삭제한다.",
        ("블로그 사이트 배포 방법을 알려줘", "업로드를 했는데 캐시가 그대로 남아 있어"),
    ),
    Note(
        "Korean",
        "데이터베이스를 마이그레이션하다가 시간이 초과될 때",
        "새로운 열을 추가하고 데이터를 조금씩 채운 뒤에 읽기를 전환한다.",
        ("데이터베이스 마이그레이션이 자꾸 멈춰요", "큰 테이블에 열 추가하기"),
    ),
    Note(
        "Korean",
        "자동차의 엔진을 켜기 전에",
        "모든 문을 잠그고 주차 브레이크를 건 상태에서 엔진을 시동한다.",
        ("엔진이 안 켜져요, 시동 좀 걸어줘", "문이 잠겼는지 확인하고 출발하자"),
    ),
    Note(
        "Korean",
        "항공권의 예약을 취소할 때",
        "예약 번호를 확인하고 환불 규정을 사용자에게 알린 다음에 취소한다.",
        ("내일 항공편 예약 취소해 줘", "항공권은 환불이 되나요?"),
    ),
    Note(
        "mixed",
        "用 get_stock_info 查询股票价格之前",
        "先调用 get_symbol_by_name 把公司名称换成股票代码，再调用 get_stock_info。",
        ("get_stock_info 报错：找不到公司", "查一下 Zeta Corp 的股票价格"),
    ),
    Note(
        "mixed",
        "startEngine 返回车门未锁的错误时",
        "先调用 lockDoors 锁好全部车门，踩下刹车 pressBrakePedal，再调用 startEngine。",
        ("startEngine 为什么失败", "发动汽车之前要先调用哪个工具锁车门"),
    ),
    Note(
        "mixed",
        "docker compose 启动后容器连不上数据库时",
        "不要用 localhost，要用 compose 文件里的服务名作为主机名，并等待 healthcheck 通过。",
        ("容器里连不上 postgres 数据库", "docker compose 里 localhost 连接被拒绝"),
    ),
    Note(
        "mixed",
        "git rebase 出现冲突时",
        "逐个解决冲突文件，git add 之后执行 git rebase --continue，不要再次 commit。",
        ("git rebase 有冲突怎么办", "解决冲突以后还要 commit 吗"),
    ),
)
